//! `coffer list` and `coffer get`, in the shape of `zpool list`, `zfs list` and `zpool get`.

use pool::report::{DatasetRow, PoolRow, PropertyRow, State};
use pool::types::Millis;

use super::{Align, table};
use crate::sizes::short;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// Without a header, tabs between columns.
    pub(crate) scripted: bool,
    /// Exact numbers.
    pub(crate) exact: bool,
}

impl Style {
    fn size(self, bytes: u64) -> String {
        if self.exact { bytes.to_string() } else { short(bytes) }
    }

    fn percent(self, percent: u8) -> String {
        if self.exact { percent.to_string() } else { format!("{percent}%") }
    }

    /// A table under its header, or tabbed rows without one.
    fn table(self, header: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
        if self.scripted {
            return rows.into_iter().map(|row| row.join("\t") + "\n").collect();
        }
        let aligns: Vec<Align> = header.iter().map(|(_, align)| *align).collect();
        let mut all = vec![header.iter().map(|(name, _)| (*name).to_owned()).collect()];
        all.extend(rows);
        table(&all, &aligns)
    }
}

use Align::{Left, Right};

/// `list -t pool`.
pub(crate) fn pools(rows: &[PoolRow], style: Style) -> String {
    if rows.is_empty() && !style.scripted {
        return "no pools available\n".to_owned();
    }
    let header = [
        ("NAME", Left),
        ("SIZE", Right),
        ("ALLOC", Right),
        ("FREE", Right),
        ("CKPOINT", Right),
        ("FRAG", Right),
        ("CAP", Right),
        ("HEALTH", Left),
    ];
    let row = |row: &PoolRow| {
        if row.health == State::Unavail {
            let dashes = std::iter::repeat_n("-".to_owned(), header.len() - 2);
            return std::iter::once(row.name.clone()).chain(dashes).chain([row.health.to_string()]).collect();
        }
        vec![
            row.name.clone(),
            style.size(row.size),
            style.size(row.alloc),
            style.size(row.free),
            row.checkpoint.map_or_else(|| "-".to_owned(), |bytes| style.size(bytes)),
            style.percent(row.fragmentation),
            style.percent(row.capacity),
            row.health.to_string(),
        ]
    };
    style.table(&header, rows.iter().map(row).collect())
}

/// `list -t volume`, `list -t snapshot`.
pub(crate) fn datasets(rows: &[DatasetRow], style: Style) -> String {
    if rows.is_empty() && !style.scripted {
        return "no datasets available\n".to_owned();
    }
    let header = [("NAME", Left), ("USED", Right), ("AVAIL", Right), ("REFER", Right), ("VOLSIZE", Right)];
    style.table(&header, rows.iter().map(|row| dataset(row, style)).collect())
}

/// The cells of a volume or snapshot.
fn dataset(row: &DatasetRow, style: Style) -> Vec<String> {
    let available = if row.kind == "snapshot" { "-".to_owned() } else { style.size(row.available) };
    vec![
        row.name.clone(),
        style.size(row.used),
        available,
        style.size(row.referenced),
        style.size(row.volsize),
    ]
}

/// `list -t all`: pools, volumes and snapshots in one table.
pub(crate) fn everything(all: &[(PoolRow, Vec<DatasetRow>)], style: Style) -> String {
    if all.is_empty() && !style.scripted {
        return "no pools available\n".to_owned();
    }
    let header = [
        ("NAME", Left),
        ("TYPE", Left),
        ("USED", Right),
        ("AVAIL", Right),
        ("REFER", Right),
        ("VOLSIZE", Right),
    ];
    let mut rows = Vec::new();
    for (pool, datasets) in all {
        let dash = || "-".to_owned();
        let size = |bytes| if pool.health == State::Unavail { dash() } else { style.size(bytes) };
        rows.push(vec![
            pool.name.clone(),
            "pool".to_owned(),
            size(pool.alloc),
            size(pool.free),
            dash(),
            dash(),
        ]);
        for row in datasets {
            let mut cells = dataset(row, style);
            cells.insert(1, row.kind.clone());
            rows.push(cells);
        }
    }
    style.table(&header, rows)
}

/// `get`.
pub(crate) fn properties(rows: &[PropertyRow], style: Style) -> String {
    let header = [("NAME", Left), ("PROPERTY", Left), ("VALUE", Left), ("SOURCE", Left)];
    let row = |row: &PropertyRow| {
        vec![row.name.clone(), row.property.clone(), value(row, style), row.source.clone()]
    };
    style.table(&header, rows.iter().map(row).collect())
}

/// A property's value; sizes, shares and times in the way people read them.
fn value(row: &PropertyRow, style: Style) -> String {
    let Some(number) = row.value.parse::<u64>().ok().filter(|_| !style.exact) else {
        return row.value.clone();
    };
    match row.property.as_str() {
        "size" | "allocated" | "free" | "used" | "available" | "referenced" | "volsize" | "volblocksize" => {
            short(number)
        }
        "refreservation" if number == 0 => "none".to_owned(),
        "refreservation" | "scan_rate" => short(number),
        "capacity" | "fragmentation" => format!("{number}%"),
        "creation" => super::date(Millis(number)),
        _ => row.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pool::types::Guid;

    use super::*;

    fn pool() -> PoolRow {
        PoolRow {
            name: "tank".into(),
            guid: Guid(7),
            size: 10 << 30,
            alloc: 3 << 29,
            free: 17 << 29,
            checkpoint: None,
            fragmentation: 3,
            capacity: 15,
            health: State::Online,
        }
    }

    fn volume(name: &str, kind: &str) -> DatasetRow {
        DatasetRow {
            name: name.into(),
            kind: kind.into(),
            used: 1 << 30,
            available: 8 << 30,
            referenced: 512 << 20,
            volsize: 1 << 30,
            created: Millis(0),
        }
    }

    #[test]
    fn pools_are_listed() {
        let wanted = "NAME  SIZE  ALLOC   FREE  CKPOINT  FRAG  CAP  HEALTH\ntank   10G  1.50G  8.50G        -    3%  15%  ONLINE\n";
        assert_eq!(pools(&[pool()], Style::default()), wanted);
        let kept = PoolRow { checkpoint: Some(3 << 19), ..pool() };
        let wanted = "NAME  SIZE  ALLOC   FREE  CKPOINT  FRAG  CAP  HEALTH\ntank   10G  1.50G  8.50G    1.50M    3%  15%  ONLINE\n";
        assert_eq!(pools(&[kept], Style::default()), wanted);
        let scripted = Style { scripted: true, exact: true };
        assert_eq!(
            pools(&[pool()], scripted),
            "tank\t10737418240\t1610612736\t9126805504\t-\t3\t15\tONLINE\n"
        );
        let gone = PoolRow { health: State::Unavail, ..pool() };
        assert_eq!(pools(&[gone], scripted), "tank\t-\t-\t-\t-\t-\t-\tUNAVAIL\n");
        assert_eq!(pools(&[], Style::default()), "no pools available\n");
        assert_eq!(pools(&[], scripted), "");
    }

    #[test]
    fn datasets_are_listed() {
        let rows = [volume("tank/v", "volume"), volume("tank/v@s", "snapshot")];
        let wanted = concat!(
            "NAME      USED  AVAIL  REFER  VOLSIZE\n",
            "tank/v      1G     8G   512M       1G\n",
            "tank/v@s    1G      -   512M       1G\n",
        );
        assert_eq!(datasets(&rows, Style::default()), wanted);
        let wanted = concat!(
            "NAME      TYPE       USED  AVAIL  REFER  VOLSIZE\n",
            "tank      pool      1.50G  8.50G      -        -\n",
            "tank/v    volume       1G     8G   512M       1G\n",
            "tank/v@s  snapshot     1G      -   512M       1G\n",
        );
        assert_eq!(everything(&[(pool(), rows.to_vec())], Style::default()), wanted);
    }

    #[test]
    fn properties_are_listed() {
        let row = PropertyRow {
            name: "tank".into(),
            property: "failmode".into(),
            value: "wait".into(),
            source: "default".into(),
        };
        let wanted = "NAME  PROPERTY  VALUE  SOURCE\ntank  failmode  wait   default\n";
        assert_eq!(properties(std::slice::from_ref(&row), Style::default()), wanted);
        let volsize = PropertyRow { property: "volsize".into(), value: "16777216".into(), ..row };
        let shown = |exact| properties(std::slice::from_ref(&volsize), Style { scripted: true, exact });
        assert_eq!(shown(false), "tank\tvolsize\t16M\tdefault\n");
        assert_eq!(shown(true), "tank\tvolsize\t16777216\tdefault\n");
    }
}
