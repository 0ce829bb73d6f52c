//! Aggregates of the batch engine that are our own: exact, and the same as those of a dataflow to the last bit.

mod arg;
mod bitmap;
mod sum;

use datafusion::logical_expr::AggregateUDF;

/// All aggregates of our own.
pub(crate) fn aggregate_functions() -> Vec<AggregateUDF> {
    let mut all = vec![sum::sum(), sum::avg(), arg::arg_min(), arg::arg_max()];
    all.extend(bitmap::all());
    all
}
