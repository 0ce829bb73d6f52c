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
    entries: RefCell<Vec<Entry>>,
    diff: Cell<Diff>,
}

#[derive(Debug, Default)]
struct Entry {
    public: ExpressionErrors,
    looked_at: u32,
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
        if let Some(slot) = entries.iter().position(|entry| entry.public.expression == expression) {
            return slot;
        }
        entries.push(Entry { public: ExpressionErrors { expression, ..Default::default() }, looked_at: 0 });
        entries.len() - 1
    }
    /// Counts a failure with the present diff; `sample` is called only while samples are wanted.
    #[cold]
    pub fn count(&self, slot: usize, sample: impl FnOnce() -> String) {
        let Entry { public, looked_at } = &mut self.entries.borrow_mut()[slot];
        public.count += self.diff.get();
        if self.diff.get() > 0 && public.samples.len() < SAMPLES && *looked_at < LOOKED_AT {
            *looked_at += 1;
            let sample = sample();
            if !public.samples.contains(&sample) {
                public.samples.push(sample);
            }
        }
    }
    /// The expressions that failed, in the order in which they were registered. One whose failures were all retracted is
    /// left out.
    pub fn report(&self) -> Vec<ExpressionErrors> {
        let entries = self.entries.borrow();
        entries.iter().map(|entry| &entry.public).filter(|entry| entry.count != 0).cloned().collect()
    }
}
