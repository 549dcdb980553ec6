//! `coffer create`.

use pool::Pool;
use pool::spec::CreateSpec;

use super::Context;
use crate::args;
use crate::error::{Failure, Outcome};
use crate::host;
use crate::names;
use crate::open;
use crate::session;
use crate::state::Record;
use crate::vdevs;

/// Makes a pool, or says what would be made.
///
/// # Errors
/// The vdevs make no pool, a device is in use or holds something, or the engine refuses; then nothing was changed.
pub(super) fn create(context: &Context, args: args::Create) -> Outcome {
    let is_dry_run = args.dry_run;
    let spec = spec(context, args)?;
    if is_dry_run {
        context.state.could_prepare()?;
        return context.planned(&Pool::plan_create(&spec)?);
    }
    // Before anything is written: a pool that can't be remembered would be of little use.
    context.state.prepare()?;
    let (mut pool, plan) = Pool::create(&host::env(host::CACHE_BYTES), &spec, &host::host())?;
    let record = Record::new(pool.name(), pool.guid(), session::paths(&pool));
    context.state.save(&record)?;
    pool.flush()?;
    context.done(&plan)
}

/// The pool that the words ask for, on devices that may be used.
///
/// # Errors
/// As [`create`], before the engine.
pub(super) fn spec(context: &Context, args: args::Create) -> Outcome<CreateSpec> {
    let name = names::pool(&args.pool)?;
    let refused = |error: vdevs::VdevError| Failure::refused(error.to_string());
    let groups = vdevs::parse(&args.vdev).map_err(refused)?;
    vdevs::check_pool(&groups, args.force).map_err(refused)?;
    context.state.name_is_free(&name, None)?;
    Ok(CreateSpec {
        name,
        groups: open::new_groups(&groups, args.force, &context.state)?,
        data: args.data,
        metadata: args.metadata,
        properties: args.settings.into_iter().map(|setting| (setting.property, setting.value)).collect(),
        command: context.command_line.clone(),
    })
}
