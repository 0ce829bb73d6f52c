//! `deltaworks bench`: a job's figures as one line of JSON.

use std::time::{Duration, Instant};

use deltaworks_engine::{EngineError, Figures};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The figures of this process, which has run a job since `start`: seconds, MiB, records per second, milliseconds.
pub(crate) fn line(figures: &Figures, start: Instant) -> Result<String, EngineError> {
    let wall = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let usage = usage.map_err(|e| EngineError::new(format!("the system does not tell what was used: {e}"), ""))?;
    let cpu = (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6;
    // Linux counts the largest resident set in KiB, macOS in bytes.
    let peak = usage.max_rss() as f64 / if cfg!(target_os = "macos") { 1024.0 * 1024.0 } else { 1024.0 };
    let (records, ticks) = (figures.records, figures.ticks);
    let (per_second, per_cpu) = (records as f64 / wall.max(1e-9), records as f64 / cpu.max(1e-9));
    let single: Vec<String> =
        figures.single.iter().map(|(table, took)| format!("{{\"table\":\"{table}\",{}}}", latencies(took))).collect();
    let days = if figures.days.is_empty() { String::new() } else { format!(",\"days\":{{{}}}", latencies(&figures.days)) };
    Ok(format!(
        "{{\"records\":{records},\"ticks\":{ticks},\"wall_s\":{wall:.3},\"cpu_s\":{cpu:.3},\"peak_mb\":{peak:.0},\
         \"records_per_s\":{per_second:.0},\"records_per_cpu_s\":{per_cpu:.0},\"single\":[{}]{days}}}",
        single.join(",")
    ))
}
fn latencies(took: &[Duration]) -> String {
    let mut sorted = took.to_vec();
    sorted.sort();
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3;
    let changes = sorted.len();
    format!("\"changes\":{changes},\"p50_ms\":{:.3},\"p99_ms\":{:.3}", at(50), at(99))
}
