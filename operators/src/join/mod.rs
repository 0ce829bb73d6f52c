//! Joins: what one collection makes of another with the same key.
//!
//! | file | what |
//! |---|---|
//! | `half.rs` | [`half_join`]: an update stream against an arrangement; the one half-join loop |
//! | `lookup.rs` | [`lookup_join`]: one half join; the right side does not revise the output |
//! | `delta.rs` | [`delta_join`]: n half-join paths, one per input, without intermediate arrangements |
//! | `linear.rs` | [`linear_join`]: two arrangements, reacting to both |
//! | `outer.rs` | [`outer_join`]: left, right and full |
//! | `semi.rs` | [`semi_join`] and [`null_aware_anti_join`]: EXISTS, NOT EXISTS, IN, NOT IN |
//! | `lookback.rs` | [`lookback_join`]: the first or last right row in a range around each left row's time |
//! | `clock.rs` | [`clock_join`]: every row beside the clock |
//! | `limit.rs` | [`limit_pairs`]: what stops a join of every pair |
//! | `pair.rs` | the loop of the operators that react to both of two arrangements |
//!
//! All sides are keyed by the packed join columns. A key with a NULL field matches nothing, as in SQL, unless an operator
//! is told that NULL equals NULL (IS NOT DISTINCT FROM). A side's row that is there a negative number of times
//! (transiently: a retraction that came before its insertion) takes part in sums with its count, and is no match where
//! an operator asks whether there is one.

mod clock;
mod delta;
mod half;
mod limit;
mod linear;
mod lookback;
mod lookup;
mod outer;
mod pair;
mod semi;

pub use clock::clock_join;
pub use delta::{Hop, HopKey, HopMerge, delta_join, delta_path};
pub use half::{HalfJoin, When, half_join};
pub use limit::limit_pairs;
pub use linear::{linear_join, linear_join_null_equal};
pub use lookback::{Pick, Range, Window, lookback_join};
pub use lookup::lookup_join;
pub use outer::{OuterKind, outer_join};
pub use semi::{Residual, null_aware_anti_join, semi_join};

use deltaworks_dataflow::row::{is_null_field, split_field};
use deltaworks_dataflow::{Time, Trace};
use differential_dataflow::trace::TraceReader;

/// Rows that an operator emits in one activation before it lets others run. Tests interrupt at almost every row.
const FUEL: usize = if cfg!(test) { 5 } else { 1 << 17 };

/// Whether rows of this key can match.
#[inline]
fn can_match(key: &[u8], null_equal: bool) -> bool {
    null_equal || !has_null(key)
}
/// Whether a field of the key is NULL.
#[inline]
fn has_null(mut key: &[u8]) -> bool {
    // Most keys do not even contain NULL's tag; only those that do are walked field by field.
    if !key.iter().any(|byte| is_null_field(std::slice::from_ref(byte))) {
        return false;
    }
    while !key.is_empty() {
        if is_null_field(split_field(&mut key)) {
            return true;
        }
    }
    false
}
/// The time up to which the trace's history may have been merged.
fn since_of(trace: &mut Trace) -> Time {
    trace.get_logical_compaction().iter().next().copied().unwrap_or(0)
}
