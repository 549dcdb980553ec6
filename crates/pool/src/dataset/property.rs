//! Properties of pools and volumes.

use crate::checksum::ChecksumKind;
use crate::compress::Compression;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::report::PropertyRow;

/// Properties of a pool that can be set: (name, default).
const POOL_PROPERTIES: [(&str, &str); 6] = [
    ("autoexpand", "off"),
    ("comment", ""),
    ("failmode", "wait"),
    ("reclaim_data", "30"),
    ("reclaim_metadata", "0"),
    ("scan_rate", "0"),
];

/// Properties of a volume that can be set: (name, default).
const VOLUME_PROPERTIES: [(&str, &str); 3] =
    [("checksum", "on"), ("compression", "off"), ("refreservation", "")];

/// Fails unless the pool property may have this value.
pub(crate) fn check_pool_property(property: &str, value: &str) -> Result<()> {
    let one_of = |allowed: &[&str]| {
        if allowed.contains(&value) {
            return Ok(());
        }
        Err(PoolError::refused(format!(
            "'{value}' is no value for {property}: it takes {}",
            allowed.join(", ")
        )))
    };
    match property {
        "autoexpand" => one_of(&["on", "off"]),
        "failmode" => one_of(&["wait", "continue"]),
        "comment" if value.len() <= 256 => Ok(()),
        "comment" => Err(PoolError::refused("a comment has at most 256 bytes")),
        "reclaim_data" | "reclaim_metadata" => match value.parse::<u64>() {
            Ok(0..=90) => Ok(()),
            _ => Err(PoolError::refused(format!(
                "'{value}' is no value for {property}: percent of a chunk, 0 (never) to 90"
            ))),
        },
        "scan_rate" => value.parse::<u64>().map(|_| ()).map_err(|_| {
            PoolError::refused(format!(
                "'{value}' is no value for scan_rate: bytes per second, 0 for no limit"
            ))
        }),
        _ => Err(unknown(property, POOL_PROPERTIES.iter().map(|(name, _)| *name))),
    }
}

/// Fails unless the volume property may have this value.
pub(crate) fn check_dataset_property(property: &str, value: &str) -> Result<()> {
    match property {
        "checksum" => value.parse::<ChecksumKind>().map(|_| ()).map_err(PoolError::refused),
        "compression" => value.parse::<Compression>().map(|_| ()).map_err(PoolError::refused),
        _ => Err(unknown(property, ["checksum", "compression", "refreservation", "volsize"].into_iter())),
    }
}

fn unknown<'a>(property: &str, known: impl Iterator<Item = &'a str>) -> PoolError {
    PoolError::refused(format!(
        "no such property: '{property}'; those that can be set are {}",
        known.collect::<Vec<_>>().join(", ")
    ))
}

impl Pool {
    /// The value of a pool property.
    pub(crate) fn property(&self, name: &str) -> &str {
        let default =
            POOL_PROPERTIES.iter().find(|(known, _)| *known == name).map_or("", |(_, default)| default);
        self.properties.get(name).map_or(default, String::as_str)
    }

    /// Properties of the pool (`name` empty), a volume or a snapshot: one, or all.
    ///
    /// # Errors
    /// No such dataset or property.
    pub fn get(&mut self, name: &str, property: Option<&str>) -> Result<Vec<PropertyRow>> {
        let full =
            if name.is_empty() { self.core.name.clone() } else { format!("{}/{name}", self.core.name) };
        let row = |property: &str, value: String, source: &str| PropertyRow {
            name: full.clone(),
            property: property.to_owned(),
            value,
            source: source.to_owned(),
        };
        let mut rows = Vec::new();
        if name.is_empty() {
            let pool = self.pool_row();
            rows.push(row("size", pool.size.to_string(), "-"));
            rows.push(row("allocated", pool.alloc.to_string(), "-"));
            rows.push(row("free", pool.free.to_string(), "-"));
            rows.push(row("capacity", pool.capacity.to_string(), "-"));
            rows.push(row("fragmentation", pool.fragmentation.to_string(), "-"));
            rows.push(row("health", pool.health.to_string(), "-"));
            rows.push(row("guid", pool.guid.to_string(), "-"));
            let readonly = if self.core.read_only { "on" } else { "off" };
            rows.push(row("readonly", readonly.to_owned(), "-"));
            for (known, default) in POOL_PROPERTIES {
                let local = self.properties.get(known);
                let source = if local.is_some() { "local" } else { "default" };
                rows.push(row(known, local.cloned().unwrap_or_else(|| default.to_owned()), source));
            }
        } else {
            let id = self.find(name)?;
            let used = self.used_by(id)?;
            let available = self.available(Some(id));
            let dataset = self.dataset(id)?;
            let kind = if dataset.is_snapshot() { "snapshot" } else { "volume" };
            rows.push(row("type", kind.to_owned(), "-"));
            rows.push(row("creation", dataset.created.to_string(), "-"));
            rows.push(row("used", used.to_string(), "-"));
            if !dataset.is_snapshot() {
                rows.push(row("available", available.to_string(), "-"));
                rows.push(row("refreservation", dataset.reservation.to_string(), "local"));
            }
            rows.push(row("referenced", dataset.referenced.to_string(), "-"));
            rows.push(row("volsize", dataset.size.to_string(), "local"));
            rows.push(row("volblocksize", dataset.block_size.to_string(), "-"));
            for (known, default) in &VOLUME_PROPERTIES[..2] {
                let local = dataset.properties.get(*known);
                let source = if local.is_some() { "local" } else { "default" };
                rows.push(row(known, local.cloned().unwrap_or_else(|| (*default).to_owned()), source));
            }
        }
        if let Some(property) = property {
            rows.retain(|row| row.property == property);
            if rows.is_empty() {
                return Err(PoolError::NotFound { kind: "property", name: property.to_owned() });
            }
        }
        Ok(rows)
    }

    /// That a property of a pool can be set to a value: what can be known without the pool.
    ///
    /// # Errors
    /// No such property, or a value that it does not take.
    pub fn check_setting(property: &str, value: &str) -> Result<()> {
        check_pool_property(property, value)
    }

    /// Sets a property of the pool (`name` empty) or of a volume.
    ///
    /// # Errors
    /// No such volume or property, or a value that it does not take.
    pub fn set(&mut self, name: &str, property: &str, value: &str) -> Result<()> {
        self.writable()?;
        if name.is_empty() {
            check_pool_property(property, value)?;
            self.properties.insert(property.to_owned(), value.to_owned());
        } else {
            let id = self.find(name)?;
            if self.dataset(id)?.is_snapshot() {
                return Err(PoolError::refused("a snapshot's properties can't be changed"));
            }
            let bytes = || {
                let none = value == "none";
                if none { Some(0) } else { value.parse::<u64>().ok() }
                    .ok_or_else(|| PoolError::refused(format!("'{value}' is no number of bytes")))
            };
            match property {
                "volsize" => return self.volume_resize(name, bytes()?),
                "refreservation" => {
                    let wanted = bytes()?;
                    let dataset = self.dataset(id)?;
                    let more = wanted.saturating_sub(dataset.reservation.max(dataset.referenced));
                    if wanted > dataset.size {
                        return Err(PoolError::refused("a reservation can't be larger than the volume"));
                    }
                    if more > self.available(None) {
                        return Err(PoolError::NoSpace);
                    }
                    if let Some(dataset) = self.datasets.get_mut(&id) {
                        dataset.reservation = wanted;
                        dataset.changed = true;
                    }
                }
                _ => {
                    check_dataset_property(property, value)?;
                    if let Some(dataset) = self.datasets.get_mut(&id) {
                        dataset.properties.insert(property.to_owned(), value.to_owned());
                        dataset.apply_properties();
                        dataset.changed = true;
                    }
                }
            }
        }
        self.changed = true;
        self.commit()
    }
}
