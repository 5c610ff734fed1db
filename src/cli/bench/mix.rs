//! The operations of a benchmark, and their shares.

use std::fmt;
use std::str::FromStr;

/// The operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
    Incr,
}

impl Operation {
    pub(super) const ALL: [Self; 3] = [Self::Get, Self::Set, Self::Incr];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Incr => "incr",
        }
    }
}

/// Operations and their shares: `get=80,set=20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mix(Vec<(Operation, u32)>);

impl Mix {
    /// Chooses an operation by a random number.
    pub(super) fn choose(&self, random: u64) -> Operation {
        let whole: u64 = self.0.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut place = random % whole.max(1);
        for (operation, share) in &self.0 {
            match place.checked_sub(u64::from(*share)) {
                None => return *operation,
                Some(rest) => place = rest,
            }
        }
        Operation::Get
    }

    pub(super) fn has_gets(&self) -> bool {
        self.0.iter().any(|(operation, _)| *operation == Operation::Get)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (name, share) = part.split_once('=').unwrap_or((part, "1"));
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            let operation =
                operation.ok_or_else(|| format!("'{name}' is none of get, set, incr"))?;
            let share = share.parse().ok().filter(|share| *share > 0);
            let share =
                share.ok_or_else(|| format!("the share of {name} is no positive number"))?;
            Ok::<_, String>((operation, share))
        };
        text.split(',').map(part).collect::<Result<_, _>>().map(Mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (operation, share)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}={share}", operation.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_chosen_by_their_shares() {
        let mix: Mix = "get=3,set".parse().unwrap();
        let chosen: Vec<_> = (0..4).map(|random| mix.choose(random).name()).collect();
        assert_eq!(chosen, ["get", "get", "get", "set"]);
        assert_eq!(mix.to_string(), "get=3,set=1");
    }

    #[test]
    fn an_invalid_mix_is_refused() {
        for text in ["", "del", "get=0", "get=x", "get,,set"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
