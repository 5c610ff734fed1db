//! Properties of a command that are known before it runs, without the state.

use super::access::{Access, Keys};
use super::cost::CommandCost;
use super::method::Effects;
use super::{Command, Visited};
use std::ops::ControlFlow;

/// Properties of a command that are known before the engine's lock is taken.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    /// Its possible effects.
    pub effects: Effects,
    /// Whether it is a command to the broker, and not to the map.
    pub is_for_broker: bool,
    /// Its cost, as far as that is known without the state.
    pub cost: CommandCost,
    /// The hash of the only key that it names.
    pub hash: Option<u64>,
}

/// Decides whether an access is allowed.
pub type Check<'c, E> = dyn FnMut(Access<'_>) -> Result<(), E> + 'c;

impl Command<'_> {
    /// Visits all accesses in one walk: `hash` gets the key of a command that names only one;
    /// `check` sees every access, unless it is `None`. Returns `Err` where `check` does.
    #[inline]
    pub fn admit<E>(
        &self,
        hash: impl FnOnce(&[u8]) -> u64,
        check: Option<&mut Check<'_, E>>,
    ) -> Result<Admission, E> {
        let (mut only, mut has_others, mut refused) = (None, false, None);
        match check {
            None => {
                let _ = self.access(&mut |access| note(&access, &mut only, &mut has_others));
            }
            Some(check) => {
                let _ = self.access(&mut |access| {
                    let _ = note(&access, &mut only, &mut has_others);
                    if let Err(refusal) = check(access) {
                        refused = Some(refusal);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        Ok(Admission {
            effects: self.effects(),
            is_for_broker: self.is_for_broker(),
            cost: self.cost(),
            hash: only.filter(|_| !has_others).map(hash),
        })
    }
}

/// Records a key that is the only one so far; stops the walk at a second one.
#[inline]
fn note<'s>(access: &Access<'s>, only: &mut Option<&'s [u8]>, has_others: &mut bool) -> Visited {
    match (access.keys, &only) {
        (Keys::One { prefix: [], key }, None) => {
            *only = Some(key);
            ControlFlow::Continue(())
        }
        _ => {
            *has_others = true;
            ControlFlow::Break(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Batch, Delete, Get};

    fn get(key: &[u8]) -> Command<'_> {
        Command::Get(Get { key: key.into(), meta: false })
    }

    fn delete(key: &[u8]) -> Command<'_> {
        let (return_value, condition, durability) = (false, None, None);
        Command::Delete(Delete { key: key.into(), return_value, condition, durability })
    }

    #[test]
    fn every_access_of_a_command_is_checked_and_its_only_key_is_hashed() {
        let batch = Batch { commands: vec![get(b"a"), delete(b"b")], durability: None };
        for (command, keys, hash) in [
            (get(b"abc"), vec![&b"abc"[..]], Some(3)),
            (Command::Batch(batch), vec![&b"a"[..], b"b"], None),
        ] {
            let mut seen = Vec::new();
            let mut check = |access: Access<'_>| match access.keys {
                Keys::One { key, .. } => {
                    seen.push(key.to_vec());
                    Ok(())
                }
                _ => Err(()),
            };
            let admission = command.admit(|key| key.len() as u64, Some(&mut check)).unwrap();
            assert_eq!(
                (admission.hash, seen),
                (hash, keys.iter().map(|key| key.to_vec()).collect())
            );
            assert_eq!(admission.effects.writes, hash.is_none());
            let unchecked = command.admit(|key| key.len() as u64, None::<&mut Check<'_, ()>>);
            assert_eq!(unchecked.unwrap().hash, hash);
            // The last of them is denied.
            let last = keys[keys.len() - 1];
            let mut check = |access: Access<'_>| match access.keys {
                Keys::One { key, .. } if key == last => Err("denied"),
                _ => Ok(()),
            };
            assert_eq!(command.admit(|_| 0, Some(&mut check)).unwrap_err(), "denied");
        }
    }
}
