//! Turns a panic below the disk into an error.
//!
//! A damaged file can make fjall panic at an assertion. Such a panic ends at the disk: it becomes
//! an ordinary error, and nothing about it is printed.

use super::StorageError;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`; a panic in `work` becomes an error of the operation `what`.
pub(super) fn guarded<T>(
    what: &str,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    silence();
    let outer = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(outer);
    done.unwrap_or_else(|panic| {
        let text = format!("the database stopped unexpectedly: {}", said(panic.as_ref()));
        Err(StorageError::new(what, text))
    })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// Makes the panic hook skip panics that are returned as errors.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                print(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let error = guarded("reading", || -> Result<(), _> { panic!("odd {}", 1) }).unwrap_err();
        assert_eq!(error.to_string(), "reading: the database stopped unexpectedly: odd 1");
        assert_eq!(guarded("reading", || Ok(7)).unwrap(), 7);
    }
}
