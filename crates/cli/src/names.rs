//! Names of pools, volumes and snapshots: `POOL`, `POOL/VOL`, `POOL/VOL@SNAP`.

use std::fmt;

use crate::error::{Failure, Outcome};

/// What a name points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The pool.
    pub(crate) pool: String,
    /// The volume, with its snapshot if there is one: `VOL` or `VOL@SNAP`.
    pub(crate) dataset: Option<String>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dataset {
            None => f.write_str(&self.pool),
            Some(dataset) => write!(f, "{}/{dataset}", self.pool),
        }
    }
}

/// Splits `POOL[/VOL[@SNAP]]`. Whether the parts may be called so is for the engine to say.
///
/// # Errors
/// A part is empty, or there is a snapshot of a pool.
pub(crate) fn any(text: &str) -> Outcome<Name> {
    let wrong = |why: &str| {
        Err(Failure::usage(format!(
            "invalid name '{text}': {why}; names are POOL, POOL/VOL or POOL/VOL@SNAP"
        )))
    };
    let (pool, dataset) = match text.split_once('/') {
        None => (text, None),
        Some((pool, dataset)) => (pool, Some(dataset)),
    };
    if pool.is_empty() {
        return wrong("it has no pool");
    }
    if pool.contains('@') {
        return wrong("a snapshot is of a volume");
    }
    let mut parts = dataset.unwrap_or("x").split('@');
    if parts.clone().any(str::is_empty) {
        return wrong("a part of it is empty");
    }
    if parts.nth(2).is_some() {
        return wrong("it has more than one '@'");
    }
    Ok(Name { pool: pool.to_owned(), dataset: dataset.map(str::to_owned) })
}

/// `POOL`, and nothing more.
///
/// # Errors
/// As [`any`], or it names something in the pool.
pub(crate) fn pool(text: &str) -> Outcome<String> {
    let name = any(text)?;
    if name.dataset.is_some() {
        return Err(Failure::usage(format!("'{text}' is not the name of a pool")));
    }
    Ok(name.pool)
}

/// `POOL/VOL` or `POOL/VOL@SNAP`, as (pool, `VOL` or `VOL@SNAP`).
///
/// # Errors
/// As [`any`], or it names a whole pool.
pub(crate) fn dataset(text: &str) -> Outcome<(String, String)> {
    let name = any(text)?;
    let Some(dataset) = name.dataset else {
        return Err(Failure::usage(format!("'{text}' is a pool; name a volume in it as {text}/VOL")));
    };
    Ok((name.pool, dataset))
}

/// `POOL/VOL`, as (pool, volume).
///
/// # Errors
/// As [`dataset`], or it is a snapshot.
pub(crate) fn volume(text: &str) -> Outcome<(String, String)> {
    let (pool, dataset) = dataset(text)?;
    if dataset.contains('@') {
        return Err(Failure::usage(format!("'{text}' is a snapshot; name its volume")));
    }
    Ok((pool, dataset))
}

/// `POOL/VOL@SNAP`, as (pool, `VOL@SNAP`).
///
/// # Errors
/// As [`dataset`], or it is a volume.
pub(crate) fn snapshot(text: &str) -> Outcome<(String, String)> {
    let (pool, dataset) = dataset(text)?;
    if !dataset.contains('@') {
        return Err(Failure::usage(format!("'{text}' is not a snapshot; name one as {text}@SNAP")));
    }
    Ok((pool, dataset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split() {
        assert_eq!(pool("tank").ok().as_deref(), Some("tank"));
        assert_eq!(volume("tank/a").ok(), Some(("tank".into(), "a".into())));
        assert_eq!(volume("tank/a/b").ok(), Some(("tank".into(), "a/b".into())));
        assert_eq!(snapshot("tank/a@s").ok(), Some(("tank".into(), "a@s".into())));
        assert_eq!(any("tank/a@s").map(|name| name.to_string()).ok().as_deref(), Some("tank/a@s"));
    }

    #[test]
    fn wrong_names_are_usage_errors() {
        for text in ["", "/", "/a", "tank/", "tank/@s", "tank/a@", "tank@s", "tank/a@b@c"] {
            assert!(matches!(any(text), Err(Failure::Usage(_))), "{text}");
        }
        assert!(pool("tank/a").is_err());
        assert!(volume("tank").is_err() && volume("tank/a@s").is_err());
        assert!(snapshot("tank/a").is_err());
    }
}
