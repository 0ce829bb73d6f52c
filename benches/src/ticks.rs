//! A second thread that reads and decodes, and hands over whole ticks; at most two wait.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::Result;

/// Ticks from a thread that makes them.
pub struct Ticks<T> {
    ticks: Receiver<T>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl<T: Send + 'static> Ticks<T> {
    /// Starts a thread that calls `next` until it returns no tick.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(mut next: impl FnMut() -> Result<Option<T>> + Send + 'static) -> Result<Ticks<T>> {
        let (sender, ticks) = sync_channel(2);
        let read = move || {
            while let Some(tick) = next()? {
                if sender.send(tick).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(read)?;
        Ok(Ticks { ticks, thread: Some(thread) })
    }
    /// The next tick.
    ///
    /// # Errors
    /// What stopped the thread.
    pub fn next_tick(&mut self) -> Result<Option<T>> {
        if let Ok(tick) = self.ticks.recv() {
            return Ok(Some(tick));
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err("the reading thread panicked".into()),
            Some(Ok(result)) => result.map(|()| None),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_in_order_and_then_the_error() {
        let mut left = 5;
        let mut ticks = Ticks::start(move || {
            left -= 1;
            if left == 0 { Err("broken".into()) } else { Ok(Some(left)) }
        })
        .expect("a thread");
        let mut all = Vec::new();
        let error = loop {
            match ticks.next_tick() {
                Ok(tick) => all.push(tick),
                Err(error) => break error,
            }
        };
        assert_eq!(all, [Some(4), Some(3), Some(2), Some(1)]);
        assert_eq!(error.to_string(), "broken");
        assert!(ticks.next_tick().expect("nothing more").is_none());
    }
}
