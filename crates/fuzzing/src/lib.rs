//! Every decoder of bytes that come from a disk or from the network, as a function of bytes that must not panic,
//! hang or take much memory, and that undoes its encoder.
//!
//! `fuzz/` runs each under libFuzzer (`cargo xtask fuzz`); `tests/corpus.rs` runs the committed corpus and seeded
//! mutations of it through the same functions, which needs no tools.
//!
//! - the engine's own structures: `pool::fuzz`, and trees in [`tree_nodes`]; a whole pool in [`image`]
//! - what talks to us: [`nbd`], [`control`]
//! - what others wrote: [`md`], [`lvm`], [`foreign`], [`raid`]; what people edit: [`texts`]

pub mod control;
pub mod foreign;
pub mod image;
pub mod lvm;
pub mod md;
pub mod nbd;
pub mod raid;
pub mod texts;
pub mod tree_nodes;

/// A fuzz target: bytes in, or a panic.
pub type Target = fn(&[u8]);

/// All of them, by the name of their folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 18] = [
    ("label", pool::fuzz::label),
    ("labels", pool::fuzz::labels),
    ("config", pool::fuzz::config),
    ("uberblock", pool::fuzz::uberblock),
    ("chunk", pool::fuzz::chunk),
    ("items", pool::fuzz::items),
    ("pointers", pool::fuzz::pointers),
    ("bitmap", pool::fuzz::bitmap),
    ("compressed", pool::fuzz::compressed),
    ("image", image::run),
    ("tree_nodes", tree_nodes::run),
    ("nbd", nbd::run),
    ("control", control::run),
    ("md", md::run),
    ("foreign", foreign::run),
    ("lvm", lvm::run),
    ("raid", raid::run),
    ("texts", texts::run),
];

/// The target of a name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> Target {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
        .expect("a target of that name")
}
