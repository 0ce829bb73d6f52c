//! Expression failures: how often each expression gave NULL because it could not be computed, net of retractions, with
//! samples of what it was given.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use deltaworks_dataflow::Diff;

/// How many inputs are kept per expression.
const SAMPLES: usize = 5;

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
        entries.push(ExpressionErrors { expression, ..Default::default() });
        entries.len() - 1
    }
    /// Counts a failure with the present diff; `sample` is called only while samples are wanted.
    #[cold]
    pub fn count(&self, slot: usize, sample: impl FnOnce() -> String) {
        let entry = &mut self.entries.borrow_mut()[slot];
        entry.count += self.diff.get();
        if self.diff.get() > 0 && entry.samples.len() < SAMPLES {
            let sample = sample();
            if !entry.samples.contains(&sample) {
                entry.samples.push(sample);
            }
        }
    }
    /// The expressions that failed, in the order in which they were registered. One whose failures were all retracted is
    /// left out.
    pub fn report(&self) -> Vec<ExpressionErrors> {
        self.entries.borrow().iter().filter(|entry| entry.count != 0).cloned().collect()
    }
}
