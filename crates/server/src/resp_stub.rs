//! temporary
use command::{CommandError, Reply};
use smallvec::SmallVec;
#[derive(Default)]
pub struct Parser;
#[derive(Clone)]
pub struct Limits;
impl Limits {
    pub fn new(_: &types::settings::Settings) -> Limits { Limits }
}
impl Parser {
    pub fn parse<'a, const N: usize>(&mut self, bytes: &'a [u8], _: &Limits, _: bool, args: &mut SmallVec<[&'a [u8]; N]>) -> Result<Option<usize>, CommandError> where [&'a [u8]; N]: smallvec::Array<Item = &'a [u8]> {
        let Some(end) = bytes.iter().position(|&b| b == b'\n') else { return Ok(None) };
        if bytes[0] == b'*' { return Err(CommandError::Other("ERR Protocol error".into())); }
        args.extend(bytes[..end].split(|&b| b == b' ' || b == b'\r').filter(|w| !w.is_empty()));
        Ok(Some(end + 1))
    }
}
pub fn write(reply: &Reply<'_>, _: u8, out: &mut Vec<u8>) {
    match reply {
        Reply::Simple(s) => { out.push(b'+'); out.extend_from_slice(s.as_bytes()); }
        Reply::Bulk(b) => { out.extend_from_slice(format!("${}\r\n", b.len()).as_bytes()); out.extend_from_slice(b); }
        Reply::Error(e) => { out.push(b'-'); out.extend_from_slice(e.to_string().as_bytes()); }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}
