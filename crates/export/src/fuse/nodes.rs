//! Names and inode numbers of the file system: a tree made of the names of the exports.
//!
//! `/` in the name of an export makes directories. A number, once given to a path, stays with it while
//! the file system is mounted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use crate::Target;

/// Number of the root directory.
pub(super) const ROOT: u64 = 1;
/// Longest file name, bytes.
pub(super) const NAME_MAX: usize = 255;

/// Runs asked for at a time when counting what is allocated, and how often.
const COUNT_RUNS: usize = 4096;
const COUNT_CALLS: u32 = 16;
/// How long a count is good for.
const COUNT_VALID: Duration = Duration::from_secs(1);

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Directory,
    Volume,
}

/// One path that was ever looked up.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    /// Of the parent directory.
    pub(super) parent: u64,
    /// Without a leading slash; "" is the root. Of a volume: the name of its export.
    pub(super) path: String,
    pub(super) kind: Kind,
    state: RwLock<NodeState>,
}

#[derive(Debug)]
struct NodeState {
    changed: SystemTime,
    /// Bytes allocated, and when they were counted.
    allocated: Option<(Instant, u64)>,
}

impl Node {
    /// When it was last written through this file system.
    pub(super) fn changed(&self) -> SystemTime {
        self.state.read().unwrap_or_else(PoisonError::into_inner).changed
    }

    /// Notes that it was written.
    pub(super) fn touch(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).changed = SystemTime::now();
    }

    /// Bytes that the volume has allocated: at most about a second old, and on the high side where the
    /// volume is too fragmented to count in a short time.
    pub(super) fn allocated(&self, target: &dyn Target) -> u64 {
        let cached = self.state.read().unwrap_or_else(PoisonError::into_inner).allocated;
        match cached {
            Some((when, bytes)) if when.elapsed() < COUNT_VALID => bytes,
            _ => {
                let bytes = count_allocated(target);
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.allocated = Some((Instant::now(), bytes));
                bytes
            }
        }
    }
}

fn count_allocated(target: &dyn Target) -> u64 {
    let size = target.size();
    let (mut at, mut allocated) = (0, 0);
    for _ in 0..COUNT_CALLS {
        let Ok(runs) = target.runs(at, size - at, COUNT_RUNS) else { break };
        let start = at;
        for run in runs {
            let length = run.length.min(size - at);
            at += length;
            allocated += if run.hole { 0 } else { length };
        }
        if at == start || at == size {
            break;
        }
    }
    allocated + (size - at)
}

/// Every path that has a number.
#[derive(Debug)]
pub(super) struct Nodes {
    tables: RwLock<Tables>,
    mounted: SystemTime,
}

#[derive(Debug, Default)]
struct Tables {
    /// By number, from [`ROOT`] on.
    nodes: Vec<Arc<Node>>,
    numbers: HashMap<String, u64>,
}

impl Nodes {
    /// Only the root.
    pub(super) fn new() -> Self {
        let nodes = Self { tables: RwLock::default(), mounted: SystemTime::now() };
        nodes.enter(ROOT, String::new(), Kind::Directory);
        nodes
    }

    /// The node of that number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Node>> {
        let index = usize::try_from(number.checked_sub(ROOT)?).ok()?;
        self.tables.read().unwrap_or_else(PoisonError::into_inner).nodes.get(index).cloned()
    }

    /// The node of a path that exists. If what is there has changed its kind, it becomes a new node.
    pub(super) fn enter(&self, parent: u64, path: String, kind: Kind) -> Arc<Node> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let known = tables.numbers.get(&path).and_then(|number| tables.nodes.get((number - ROOT) as usize));
        if let Some(node) = known.filter(|node| node.kind == kind) {
            return Arc::clone(node);
        }
        let number = ROOT + tables.nodes.len() as u64;
        let state = RwLock::new(NodeState { changed: self.mounted, allocated: None });
        let node = Arc::new(Node { number, parent, path: path.clone(), kind, state });
        tables.nodes.push(Arc::clone(&node));
        tables.numbers.insert(path, number);
        node
    }
}

/// The path of `name` in `directory`.
pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Whether a file system can show the name.
pub(super) fn is_presentable(name: &str) -> bool {
    !name.contains('\0')
        && name.split('/').all(|part| !["", ".", ".."].contains(&part) && part.len() <= NAME_MAX)
}

/// What lies directly in `directory`, given the names of all exports.
pub(super) fn children(directory: &str, names: &[String]) -> BTreeMap<String, Kind> {
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| is_presentable(name)) {
        let rest = if directory.is_empty() {
            name
        } else {
            match name.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')) {
                Some(rest) => rest,
                None => continue,
            }
        };
        match rest.split_once('/') {
            // A volume that has the same name as a directory hides it.
            None => _ = found.insert(rest.to_owned(), Kind::Volume),
            Some((child, _)) => _ = found.entry(child.to_owned()).or_insert(Kind::Directory),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn slashes_make_directories() {
        let names =
            names(&["tank/a", "tank/b@monday", "tank/deep/c", "root", "../x", "a//b", "/y", "root/under"]);
        let root: Vec<_> = children("", &names).into_iter().collect();
        assert_eq!(root, [("root".to_owned(), Kind::Volume), ("tank".to_owned(), Kind::Directory)]);
        let tank: Vec<_> = children("tank", &names).into_keys().collect();
        assert_eq!(tank, ["a", "b@monday", "deep"]);
        assert_eq!(children("tan", &names).len(), 0);
    }

    #[test]
    fn numbers_stay() {
        let nodes = Nodes::new();
        let a = nodes.enter(ROOT, "a".into(), Kind::Volume);
        let b = nodes.enter(ROOT, "b".into(), Kind::Volume);
        assert_ne!(a.number, b.number);
        assert_eq!(nodes.enter(ROOT, "a".into(), Kind::Volume).number, a.number);
        assert_ne!(nodes.enter(ROOT, "a".into(), Kind::Directory).number, a.number);
        assert_eq!(nodes.get(ROOT).map(|root| root.path.clone()), Some(String::new()));
        assert!(nodes.get(0).is_none() && nodes.get(99).is_none());
    }
}
