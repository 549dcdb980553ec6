//! `coffer plan`: what a change comes to.

use std::fmt::Write;

use pool::report::{Forecast, PoolShape};

use super::{duration, plan};
use crate::sizes::short_bytes;

/// Steps, room and redundancy, with the time that a device needs which does so many bytes a second.
pub(crate) fn forecast(forecast: &Forecast, rate: u64) -> String {
    let mut text = plan(&forecast.plan);
    for (index, step) in forecast.steps.iter().enumerate() {
        let _ = write!(text, "{}. {}", index + 1, step.what);
        if step.bytes > 0 {
            let seconds = step.busiest.div_ceil(rate);
            let _ = write!(
                text,
                ": {}, about {} at {}/s a device",
                short_bytes(step.bytes),
                duration(seconds),
                short_bytes(rate)
            );
        }
        let _ = writeln!(text, "; until then {}", survives(step.survives));
    }
    let (now, then) = (forecast.now.as_ref(), &forecast.then);
    text.push('\n');
    let mut line = |name: &str, cell: &dyn Fn(&PoolShape) -> String| {
        let cells = now.into_iter().chain([then]).map(|shape| format!("  {:>10}", cell(shape)));
        let _ = writeln!(text, "{name:<24}{}", cells.collect::<String>());
    };
    if now.is_some() {
        line("", &|shape| if std::ptr::eq(shape, then) { "then".to_owned() } else { "now".to_owned() });
    }
    line("usable", &|shape| short_bytes(shape.used + shape.available));
    line("used", &|shape| short_bytes(shape.used));
    line("available", &|shape| short_bytes(shape.available));
    line("survives any", &|shape| shape.survives.map_or_else(|| "-".to_owned(), |count| count.to_string()));
    let names = now.into_iter().chain([then]).flat_map(|shape| &shape.vdevs).map(|vdev| &vdev.name);
    let mut told: Vec<&String> = Vec::new();
    for name in names {
        if told.contains(&name) {
            continue;
        }
        told.push(name);
        line(&format!("  {name}"), &|shape| {
            let vdev = shape.vdevs.iter().find(|vdev| vdev.name == *name);
            vdev.map_or_else(String::new, |vdev| match vdev.survives {
                Some(count) => format!("{count} of {}", vdev.devices),
                None => format!("- of {}", vdev.devices),
            })
        });
    }
    text
}

fn survives(count: Option<u16>) -> String {
    match count {
        None => "something is lost already".to_owned(),
        Some(0) => "no failure is survived".to_owned(),
        Some(1) => "any one failure is survived".to_owned(),
        Some(count) => format!("any {count} failures are survived"),
    }
}
