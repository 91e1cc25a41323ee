//! `annulet accept-loss`: the operator's loudly named command that gives lost data up.

use crate::status::{Status, connect};
use crate::{Failure, print};
use clap::ArgMatches;
use client::{Connection, Reply};
use std::process::ExitCode;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut connection = connect(matches)?;
    let (status, _) = Status::ask(&mut connection)?;
    let lost = status.partitions.lost;
    if lost == 0 {
        return print("Nothing is lost: every partition has a copy left. Nothing was done.\n");
    }
    if !matches.get_flag("yes-lose-data") {
        let total = status.partitions.total;
        return Err(format!(
            "{lost} of {total} partitions have no copy left. Giving them up starts them empty, for good; where a \
             node that has a copy can still be started, start it instead. To go on, say --yes-lose-data"
        )
        .into());
    }
    let empty = give_up(&mut connection)?;
    print(&format!("{empty} partitions were started anew, empty. What they held is given up.\n"))
}

/// Has every lost partition started anew, and returns how many there were.
pub(crate) fn give_up(connection: &mut Connection) -> Result<i64, Failure> {
    match connection.request(&["ANNULET", "ACCEPT-LOSS", "ALL"])? {
        Reply::Integer(count) => Ok(count),
        Reply::Error(error) => Err(format!("{} answers: {error}", connection.address()).into()),
        other => {
            Err(format!("{} answers something else than a number: {other:?}", connection.address()).into())
        }
    }
}
