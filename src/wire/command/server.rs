//! `hello` and `ping`.

use crate::wire::params::Params;
use crate::wire::refusal::{self, Refusal};

/// How many characters are kept of the name that a client gives itself.
const CLIENT_CHARS: usize = 256;

/// `hello [{client}]`: a map of what the broker is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The name the client gives itself, for the broker's log.
    pub client: Option<String>,
}

impl Hello {
    pub(super) fn decode(params: &mut Params<'_, '_>) -> Result<Self, Refusal> {
        let mut hello = Self::default();
        params.options(&["client"], |name, reader| {
            let bytes = reader.bytes().map_err(|fault| fault.at(name))?;
            hello.client = Some(refusal::shown(bytes, CLIENT_CHARS));
            Ok(())
        })?;
        Ok(hello)
    }
}

/// `ping [payload]`: the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping<'a> {
    /// Any value, sent back byte for byte; nil where there is none.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Ping<'a> {
    pub(super) fn decode(params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        let payload = params.optional_value("payload")?;
        params.finish()?;
        Ok(Self { payload })
    }
}
