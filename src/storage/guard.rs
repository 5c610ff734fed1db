//! A panic below the disk, told as an error.
//!
//! A damaged file can make fjall panic where it means to assert. Such a panic ends at the disk: it
//! becomes an error like others, and nothing about it is printed.

use super::StorageError;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`; a panic in it is an error while doing `what`.
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

/// Lets the hook that prints panics pass over those that are told as errors.
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
    fn a_panic_is_an_error_with_its_words() {
        let error = guarded("reading", || -> Result<(), _> { panic!("odd {}", 1) }).unwrap_err();
        assert_eq!(error.to_string(), "reading: the database stopped unexpectedly: odd 1");
        assert_eq!(guarded("reading", || Ok(7)).unwrap(), 7);
    }
}
