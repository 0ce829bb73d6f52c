//! Expression failures: how often each expression gave NULL because it could not be computed, net of retractions, with
//! samples of what it was given.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use deltaworks_dataflow::Diff;

/// How many inputs are kept per expression.
const SAMPLES: usize = 5;
/// How many failures are looked at for samples: past them, counting costs no text.
const LOOKED_AT: u32 = 100;

/// The failures of the expressions of one operator or view.
#[derive(Debug, Default)]
pub struct EvalErrors {
    entries: RefCell<Vec<ExpressionErrors>>,
    diff: Cell<Diff>,
}

/// The failures of one expression.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExpressionErrors {
    /// The expression as text.
    pub expression: String,
    /// Failures, net of retractions.
    pub count: Diff,
    /// The first inputs on which it failed.
    pub samples: Vec<String>,
    /// How many failures were looked at for samples.
    looked_at: u32,
}

impl ExpressionErrors {
    /// No failures yet of the expression of that text.
    pub(crate) fn of(expression: String) -> Self {
        ExpressionErrors { expression, ..Default::default() }
    }
    /// Counts a failure; `sample` is called only while samples are wanted.
    pub(crate) fn add(&mut self, diff: Diff, sample: impl FnOnce() -> String) {
        self.count += diff;
        if diff > 0 && self.samples.len() < SAMPLES && self.looked_at < LOOKED_AT {
            self.looked_at += 1;
            let sample = sample();
            if !self.samples.contains(&sample) {
                self.samples.push(sample);
            }
        }
    }
}

impl EvalErrors {
    /// No failures yet.
    pub fn new() -> Rc<EvalErrors> {
        Rc::new(EvalErrors { entries: RefCell::default(), diff: Cell::new(1) })
    }
    /// Sets how often the rows evaluated from now on occur: negative for a retraction.
    #[inline]
    pub fn set_diff(&self, diff: Diff) {
        self.diff.set(diff);
    }
    /// Returns the slot of an expression; equal texts share one.
    pub fn register(&self, expression: String) -> usize {
        let mut entries = self.entries.borrow_mut();
        if let Some(slot) = entries.iter().position(|entry| entry.expression == expression) {
            return slot;
        }
        entries.push(ExpressionErrors::of(expression));
        entries.len() - 1
    }
    /// Counts a failure with the present diff; `sample` is called only while samples are wanted.
    #[cold]
    pub fn count(&self, slot: usize, sample: impl FnOnce() -> String) {
        self.entries.borrow_mut()[slot].add(self.diff.get(), sample);
    }
    /// The expressions that failed, in the order in which they were registered. One whose failures were all retracted is
    /// left out.
    pub fn report(&self) -> Vec<ExpressionErrors> {
        let entries = self.entries.borrow();
        entries.iter().filter(|entry| entry.count != 0).cloned().collect()
    }
}
