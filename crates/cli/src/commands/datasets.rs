//! Volumes and snapshots as such: create, resize, destroy, snapshot, rollback, set.

use protocol::request::Request;

use super::{Context, jobs};
use crate::args;
use crate::error::{Failure, Outcome};
use crate::names;
use crate::session::{self, Mode};

/// `coffer volume create`.
///
/// # Errors
/// The engine's.
pub(super) fn create(context: &Context, args: args::VolumeCreate) -> Outcome {
    let (pool, name) = names::volume(&args.name)?;
    let settings = args.settings.into_iter().map(|setting| (setting.property, setting.value)).collect();
    let (size, block_size, sparse) = (args.size, args.block_size, args.sparse);
    change(context, &pool, &Request::VolumeCreate { name, size, block_size, sparse, settings })
}

/// `coffer volume resize`.
///
/// # Errors
/// The engine's.
pub(super) fn resize(context: &Context, args: &args::VolumeResize) -> Outcome {
    let (pool, name) = names::volume(&args.name)?;
    change(context, &pool, &Request::VolumeResize { name, size: args.size })
}

/// `coffer snapshot`.
///
/// # Errors
/// The engine's.
pub(super) fn snapshot(context: &Context, args: &args::Snapshot) -> Outcome {
    let (pool, name) = names::snapshot(&args.name)?;
    change(context, &pool, &Request::Snapshot { name })
}

/// `coffer rollback`.
///
/// # Errors
/// The engine's.
pub(super) fn rollback(context: &Context, args: &args::Snapshot) -> Outcome {
    let (pool, name) = names::snapshot(&args.name)?;
    change(context, &pool, &Request::Rollback { name })
}

/// `coffer set`.
///
/// # Errors
/// The engine's.
pub(super) fn set(context: &Context, args: args::Set) -> Outcome {
    let name = names::any(&args.name)?;
    let (property, value) = (args.setting.property, args.setting.value);
    change(context, &name.pool, &Request::Set { name: name.dataset.unwrap_or_default(), property, value })
}

/// `coffer destroy`.
///
/// # Errors
/// The engine's; a volume that has snapshots; a pool that is being served or can't be opened, without `-f`.
pub(super) fn destroy(context: &Context, args: &args::Destroy) -> Outcome {
    let name = names::any(&args.name)?;
    if let Some(dataset) = name.dataset {
        return jobs::administer(context, &name.pool, &Request::DatasetDestroy { name: dataset }, false);
    }
    let guid = context.state.find(&name.pool)?.guid;
    match session::open(&context.state, &name.pool, Mode::Change, &context.command_line) {
        Ok(session) => {
            session.give_up(&Request::Destroy { force: args.force })?;
            context.state.forget(guid)
        }
        Err(Failure::Pool(_)) if args.force => context.state.destroy_unopened(&name.pool),
        Err(Failure::Pool(error)) => Err(Failure::refused(format!(
            "{error}; 'destroy -f' clears the labels of what is there and forgets the pool"
        ))),
        Err(other) => Err(other),
    }
}

/// A change that is done when the answer is there.
fn change(context: &Context, pool: &str, request: &Request) -> Outcome {
    context.ask(pool, Mode::Change, request).map(drop)
}
