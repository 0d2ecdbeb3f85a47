//! Many sessions of one model in one call, in any order, of different lengths and with different parameters: their
//! passes read the weights once for all of them. Each entry is independent: its tokens, logits and status are those of
//! the same call for its session alone, bit for bit, whatever becomes of the others.
//!
//! Each function takes arrays of `n` entries and fills `statuses` with one kigo_status each. It returns
//! KIGO_STATUS_OK if all of these are; otherwise the first of them that is not, and kigo_last_error() has that
//! entry's index and text. Whoever drops some sessions and goes on with the rest looks at `statuses` alone. Where an
//! array itself is at fault (NULL) nothing has happened and all of `statuses`, if it is not NULL, are
//! KIGO_STATUS_INVALID_ARGUMENT. `n` may be 0.
//!
//! The entry's own status is KIGO_STATUS_INVALID_ARGUMENT for a session that is NULL, of another model than entry 0's,
//! or named by an earlier entry; KIGO_STATUS_BUSY for one in use; and whatever the single call gives. All sessions are
//! in use until the call returns.
//!
//! Cancelling. A pass that several entries share, of this call or of calls that are merged (KIGO_LOAD_MERGE_CALLS), is not
//! stopped: a cancel is seen before the next, on the CPU after kigo_load_options.pass_tokens tokens of prompts and a token of
//! each entry that steps, 512 at most in all, on a GPU after 2,048 at most of all entries together. It stops its own entry and
//! no other. One that comes while the entry's last pass runs stops the session's next call instead. An entry that is alone in
//! a pass stops as a call for it alone does.

use super::prelude::*;
use super::session::{kigo_session, session};
use super::status::KIGO_STATUS_INVALID_ARGUMENT;
use super::tokenizer::KIGO_TOKEN_NONE;
use crate::engine::{Append, append_batch, sample_batch};

/// Where the outcomes go.
struct Statuses(*mut kigo_status, usize);

/// What a batch takes for each entry beside what is reserved: 651 bytes were measured for 500 entries, fewer for more.
const ENTRY_BYTES: usize = 2048;

impl Statuses {
    /// Marks all as not run.
    ///
    /// # Safety
    /// `statuses` is NULL or has room for `n`.
    unsafe fn new(statuses: *mut kigo_status, n: usize) -> Result<Statuses> {
        if n == 0 {
            return Ok(Statuses(statuses, 0));
        }
        array(statuses, n, "statuses")?;
        let room = crate::alloc::require(n.saturating_mul(ENTRY_BYTES));
        let mark = room.as_ref().map_or_else(super::guard::status_of, |()| KIGO_STATUS_INVALID_ARGUMENT);
        // SAFETY: neither NULL nor misaligned (checked above), with room for `n` by this function's contract.
        (0..n).for_each(|i| unsafe { statuses.add(i).write(mark) });
        room.map(|()| Statuses(statuses, n))
    }

    /// Stores each outcome's status; the first failure is the call's.
    fn store(&self, outcomes: impl Iterator<Item = Result<()>>) -> Result<()> {
        let mut first = Ok(());
        for (index, outcome) in outcomes.enumerate().take(self.1) {
            let status = outcome.as_ref().map_or_else(super::guard::status_of, |()| 0);
            // SAFETY: index < n, for which `new` has checked the pointer.
            unsafe { self.0.add(index).write(status) };
            if let (Ok(()), Err(error)) = (&first, outcome) {
                first = Err(Error::Entry { index, error: Box::new(error) });
            }
        }
        first
    }
}

/// What each entry's session was, and the outcomes of those that could be read; each session is told its failure.
fn spread<T>(
    read: impl Iterator<Item = Result<Held<kigo_session>>>,
    ran: Vec<Result<T>>,
    mut each: impl FnMut(usize, T),
) -> Vec<Result<()>> {
    super::guard::about_several();
    let mut ran = ran.into_iter();
    let mut next = |index| match ran.next() {
        Some(outcome) => outcome.map(|value| each(index, value)),
        None => Err(Error::Internal { message: "an entry without an outcome".to_owned() }),
    };
    let outcome = |(index, read): (usize, Result<Held<kigo_session>>)| {
        let session = read?;
        next(index).inspect_err(|error| session.failed(error))
    };
    read.enumerate().map(outcome).collect()
}

/// Appends to each session its tokens, `n_ids[i]` at `ids[i]`: kigo_session_prefill() for many. Entries of one token
/// are steps, so that new prompts and running answers may share a call; on the CPU they are part of its first passes. The
/// memory of each entry is taken before anything runs, in the order of the entries. The call returns when the longest is done:
/// whoever steps answers beside a prompt in a call gives it the prompt piece by piece (examples-c/scheduler.c), or
/// leaves that to a kigo_batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_prefill_batch(
    sessions: *const *mut kigo_session,
    ids: *const *const u32,
    n_ids: *const usize,
    n: usize,
    statuses: *mut kigo_status,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let statuses = Statuses::new(statuses, n)?;
        let (handles, ids, n_ids) = (slice(sessions, n, "sessions")?, slice(ids, n, "ids")?, slice(n_ids, n, "n_ids")?);
        let read = (0..n).map(|i| Ok((session(handles[i])?, slice(ids[i], n_ids[i], "ids")?)));
        append(&statuses, read.collect())
    })
}

/// Appends to each session one token: kigo_session_step() for many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_step_batch(
    sessions: *const *mut kigo_session,
    tokens: *const u32,
    n: usize,
    statuses: *mut kigo_status,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let statuses = Statuses::new(statuses, n)?;
        let (handles, tokens) = (slice(sessions, n, "sessions")?, slice(tokens, n, "tokens")?);
        let read = handles.iter().zip(tokens.chunks(1)).map(|(handle, token)| Ok((session(*handle)?, token)));
        append(&statuses, read.collect())
    })
}

fn append(statuses: &Statuses, read: Vec<Result<(Held<kigo_session>, &[u32])>>) -> Result<()> {
    let entries: Vec<_> =
        read.iter().flatten().map(|(session, tokens)| Append { session: &session.0, tokens }).collect();
    let ran = append_batch(&entries);
    drop(entries);
    statuses.store(spread(read.into_iter().map(|r| r.map(|(session, _)| session)), ran, |_, ()| ()).into_iter())
}

/// Picks the next token of each session from its current logits, with its own parameters: kigo_session_sample() for
/// many. `tokens` gets one each; KIGO_TOKEN_NONE where the entry's status is not KIGO_STATUS_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_sample_batch(
    sessions: *const *mut kigo_session,
    n: usize,
    tokens: *mut u32,
    statuses: *mut kigo_status,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let statuses = Statuses::new(statuses, n);
        if n > 0 {
            array(tokens, n, "tokens")?;
        }
        (0..n).for_each(|i| tokens.add(i).write(KIGO_TOKEN_NONE));
        let statuses = statuses?;
        let read: Vec<Result<Held<kigo_session>>> =
            slice(sessions, n, "sessions")?.iter().map(|handle| session(*handle)).collect();
        let ran = sample_batch(&read.iter().flatten().map(|session| &session.0).collect::<Vec<_>>());
        let put = |index: usize, token: u32| tokens.add(index).write(token);
        statuses.store(spread(read.into_iter(), ran, put).into_iter())
    })
}
