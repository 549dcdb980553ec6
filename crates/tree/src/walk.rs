//! Visits of committed trees: all of one, what is newer than a transaction group, what a newer root has dropped.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::error::NodeError;
use crate::key::Key;
use crate::node::Node;
use crate::pointer::NodePtr;
use crate::store::{Source, fetch};

/// The keys that a subtree may hold, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// No key below is less.
    pub first: Key,
    /// No key below is more.
    pub last: Key,
}

impl Bounds {
    const ALL: Self = Self { first: Key::MIN, last: Key::MAX };
}

/// Whether to go down into a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// Read the node and visit what is in it.
    Enter,
    /// Leave out the whole subtree.
    Skip,
    /// End the walk.
    Stop,
}

/// Is told what a walk meets, in the order of keys, parents before children.
pub trait Visitor<E> {
    /// A node that is about to be read.
    fn node(&mut self, pointer: &NodePtr, bounds: Bounds) -> Result<Visit, E> {
        let _ = (pointer, bounds);
        Ok(Visit::Enter)
    }

    /// An item of a leaf; `Break` ends the walk.
    fn item(&mut self, key: Key, value: &[u8]) -> Result<ControlFlow<()>, E> {
        let _ = (key, value);
        Ok(ControlFlow::Continue(()))
    }

    /// A node that can't be had, or holds keys out of its bounds. Whatever is in `bounds` stays unvisited.
    /// `Continue` goes on behind it; unless overridden the walk fails with `error`.
    fn unreadable(&mut self, pointer: &NodePtr, bounds: Bounds, error: E) -> Result<ControlFlow<()>, E> {
        let _ = (pointer, bounds);
        Err(error)
    }
}

/// Visits the nodes born after transaction group `min_birth` that `root` reaches, and all items of their leaves.
///
/// Subtrees born at or before `min_birth` are left out, and a leaf born later may hold items that were there
/// before. Birth 0 visits everything. Returns `Break` if the visitor ended the walk.
///
/// # Errors
/// The visitor's.
pub fn walk<S: Source>(
    root: Option<NodePtr>,
    min_birth: u64,
    source: &mut S,
    visitor: &mut impl Visitor<S::Error>,
) -> Result<ControlFlow<()>, S::Error> {
    walk_from(root, min_birth, Key::MIN, source, visitor)
}

/// As [`walk`], without the items before `from` and the nodes that hold nothing else: resumes a walk.
///
/// Nodes whose bounds contain `from` are visited again.
///
/// # Errors
/// The visitor's.
pub fn walk_from<S: Source>(
    root: Option<NodePtr>,
    min_birth: u64,
    from: Key,
    source: &mut S,
    visitor: &mut impl Visitor<S::Error>,
) -> Result<ControlFlow<()>, S::Error> {
    let enters = |pointer: &NodePtr| pointer.birth > min_birth;
    Walk { source, visitor, enters, from }.root(root)
}

/// Visits the nodes that `old` reaches and `new` does not, and the items of the leaves among them.
///
/// Both are committed roots of the same tree (or `new` of a clone), `old` an earlier one. An item of a dropped
/// leaf may live on in `new` in another leaf; the visitor finds out. What both share is neither read nor
/// visited, so the work is that of the changes between the two.
///
/// # Errors
/// The visitor's. An unreadable node of `new` always is one: what it shares with `old` can't be known then.
pub fn dropped<S: Source>(
    old: Option<NodePtr>,
    new: Option<NodePtr>,
    source: &mut S,
    visitor: &mut impl Visitor<S::Error>,
) -> Result<ControlFlow<()>, S::Error> {
    let Some(old) = old else { return Ok(ControlFlow::Continue(())) };
    // A tree's nodes are born once and never come back: whatever `new` reaches and was there when `old` was
    // committed is part of `old` too, with everything below. Only the topmost of these are collected.
    let mut shared = HashSet::new();
    let enters = |pointer: &NodePtr| {
        let newer = pointer.birth > old.birth;
        if !newer {
            shared.insert((pointer.address, pointer.birth));
        }
        newer
    };
    let _ = Walk { source, visitor: &mut Branches, enters, from: Key::MIN }.root(new)?;
    let enters = |pointer: &NodePtr| !shared.contains(&(pointer.address, pointer.birth));
    Walk { source, visitor, enters, from: Key::MIN }.root(Some(old))
}

/// Reads branches only.
struct Branches;

impl<E> Visitor<E> for Branches {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit, E> {
        Ok(if pointer.level == 0 { Visit::Skip } else { Visit::Enter })
    }
}

struct Walk<'a, S, V, F> {
    source: &'a mut S,
    visitor: &'a mut V,
    /// Whether a subtree is part of the walk at all.
    enters: F,
    from: Key,
}

impl<S: Source, V: Visitor<S::Error>, F: FnMut(&NodePtr) -> bool> Walk<'_, S, V, F> {
    fn root(mut self, root: Option<NodePtr>) -> Result<ControlFlow<()>, S::Error> {
        root.map_or(Ok(ControlFlow::Continue(())), |root| self.subtree(&root, Bounds::ALL))
    }

    /// Visits one subtree. Recursion is bounded by the level of the root.
    fn subtree(&mut self, pointer: &NodePtr, bounds: Bounds) -> Result<ControlFlow<()>, S::Error> {
        if bounds.last < self.from || !(self.enters)(pointer) {
            return Ok(ControlFlow::Continue(()));
        }
        match self.visitor.node(pointer, bounds)? {
            Visit::Enter => {}
            Visit::Skip => return Ok(ControlFlow::Continue(())),
            Visit::Stop => return Ok(ControlFlow::Break(())),
        }
        let node = match fetch(self.source, pointer) {
            Ok(node) => node,
            Err(error) => return self.visitor.unreadable(pointer, bounds, error),
        };
        if let Err(error) = check_bounds(&node, bounds) {
            return self.visitor.unreadable(pointer, bounds, error.into());
        }
        if node.level() == 0 {
            let first = node.search_item(self.from).unwrap_or_else(|at| at);
            for index in first..node.len() {
                let (key, value) = node.item(index);
                if self.visitor.item(key, value)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        } else {
            for index in node.search_child(self.from)..node.len() {
                let (first, child) = node.child(index);
                let last = if index + 1 < node.len() {
                    // The next bound is more than this one, so there is a key before it.
                    node.child(index + 1).0.previous().unwrap_or(Key::MIN)
                } else {
                    bounds.last
                };
                if self.subtree(&child, Bounds { first, last })?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The keys of a node are where its parent says. With this no subtree can be met twice, whatever pointers say.
fn check_bounds(node: &Node, bounds: Bounds) -> Result<(), NodeError> {
    let last = node.len() - 1;
    let (low, high) = if node.level() == 0 {
        (node.item(0).0, node.item(last).0)
    } else {
        (node.child(0).0, node.child(last).0)
    };
    if low < bounds.first || high > bounds.last {
        return Err(NodeError::new(
            node.header().address,
            "range of keys",
            format_args!("{low} to {high}"),
            format_args!("within {} and {}", bounds.first, bounds.last),
        ));
    }
    Ok(())
}
