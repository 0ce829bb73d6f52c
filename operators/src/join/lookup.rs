//! The lookup join: each update of the stream with the right rows of its key, as of its time.
//!
//! *Definition.* One [`half_join`] that sees changes up to the update's own tick: a new or retracted stream row probes the
//! arrangement once. Later changes on the right revise nothing, so the output is not a function of the two collections.
//!
//! *State.* The shared arrangement, and nothing of the stream.
//!
//! *On retraction.* A retracted row probes again, and may find another answer than its insertion did. So the output may
//! feed a keyed table (which takes the key of a delete only), or the stream must be append-only.
//!
//! *On ties, nulls, late rows.* A key with a NULL field matches nothing. Right rows that arrive after the stream row are
//! not seen, those of the same tick are.
//!
//! *Example.* Order 1 of customer a at tick 2, a's address x since tick 1 and y from tick 3 on: (1, x) at 2, for ever.

use deltaworks_dataflow::{Arranged, Diff, KeyedCollection, Time};
use differential_dataflow::VecCollection;

use super::half::{When, half_join};

/// Looks each update of the stream up as of its time; `outer`: a row without a match is emitted with None.
pub fn lookup_join<'s, D: Clone + 'static>(
    stream: KeyedCollection<'s>,
    arranged: Arranged<'s>,
    outer: bool,
    name: &str,
    logic: impl FnMut(&[u8], &[u8], Option<&[u8]>) -> Option<D> + 'static,
) -> VecCollection<'s, Time, D, Diff> {
    half_join(stream, arranged, When::UpTo, outer, name, logic)
}
