//! The management thread's end of the questions to the shards ([`crate::desk`]): asks, waits, and goes from shard
//! to shard for what comes in pages.

use super::pages::Pages;
use crate::desk::{Ask, Cursor, Listing, Page, Place, Range, Reply, Wanted};
use crate::limits::{DESK_ASKS_MAX, DESK_LISTINGS_MAX, DESK_PAGE_ROWS_MAX};
use crate::map::Keyed;
use crate::time::Moment;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, oneshot};

/// Gives a question to one shard and wakes it; false: it is gone.
pub type Port = Box<dyn Fn(Ask) -> bool + Send + Sync>;

/// All shards, to be asked. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    ports: Vec<Port>,
    keyed: Keyed,
    /// The time of day at which the shards' clock was 0.
    day: SystemTime,
    pages: Pages,
    asks: Semaphore,
    listings: Semaphore,
}

/// A shard did not answer, because the broker stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Away;

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shard gave no answer: the broker stops")
    }
}

impl std::error::Error for Away {}

/// Where a listing over all shards goes on. The default is its start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    pub(super) shard: usize,
    pub(super) place: Place,
}

/// Some rows of a listing over all shards.
#[derive(Debug)]
pub struct Listed<R> {
    /// The rows, by shard and then in the shard's order.
    pub rows: Vec<R>,
    /// Where the next row is, if there is one.
    pub next: Option<Position>,
}

/// One page, as tools know them.
#[derive(Debug)]
pub struct Paged<R> {
    /// Its number, from 1 on.
    pub number: u64,
    /// Rows of a page.
    pub limit: usize,
    /// Rows of all pages.
    pub count: u64,
    /// Whether there is a page behind it.
    pub has_next: bool,
    /// The rows.
    pub rows: Vec<R>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk of {} shards", self.shards())
    }
}

impl Desk {
    /// A desk for these shards; `keyed` is theirs, and `day` the time of day at which their clock was 0.
    pub fn new(ports: Vec<Port>, keyed: Keyed, day: SystemTime) -> Desk {
        let (asks, listings) = (Semaphore::new(DESK_ASKS_MAX), Semaphore::new(DESK_LISTINGS_MAX));
        Desk(Arc::new(Inner { ports, keyed, day, pages: Pages::default(), asks, listings }))
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.0.ports.len()
    }

    /// The shard that a client lives on, or that keeps what is retained for a topic.
    pub fn home(&self, client_id_or_topic: &str) -> usize {
        self.0.keyed.home(client_id_or_topic, self.shards().max(1))
    }

    /// The key of a client identifier: the publisher of a message in its name.
    pub fn key(&self, client_id: &str) -> u64 {
        self.0.keyed.key(client_id)
    }

    /// The time of day of a moment of the shards' clock that counts in whole seconds. All of them are a whole number
    /// of seconds after the same one, so that two times of day differ by what the moments differ.
    pub fn time_of_day(&self, moment: Moment) -> SystemTime {
        let day = self.0.day.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(day + moment.0 / 1_000)
    }

    /// Milliseconds since 1970 of a moment, in step with [`Desk::time_of_day`].
    pub fn time_of_day_ms(&self, moment: Moment) -> u64 {
        self.0.day.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000 + moment.0
    }

    /// The moments, in whole seconds, whose time of day is from `min_s` to `max_s` seconds since 1970.
    pub fn range(&self, min_s: Option<u64>, max_s: Option<u64>) -> Range {
        let day = self.0.day.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let min = min_s.map_or(0, |s| s.saturating_sub(day).saturating_mul(1_000));
        match max_s.map(|s| s.checked_sub(day)) {
            None => Range { min, max: u64::MAX },
            Some(Some(s)) => Range { min, max: s.saturating_mul(1_000) },
            // Before the broker started: nothing.
            Some(None) => Range { min: u64::MAX, max: 0 },
        }
    }

    /// The moment that it is on the shards' clock.
    pub fn now(&self) -> Moment {
        Moment(SystemTime::now().duration_since(self.0.day).unwrap_or_default().as_millis() as u64)
    }

    /// Asks one shard.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Away> {
        let _permit = self.0.asks.acquire().await.map_err(|_| Away)?;
        self.wait(shard, ask).await
    }

    /// Asks one shard what it may answer much later; so it takes no place among the questions that are under way, and
    /// whoever asks bounds how many there are.
    ///
    /// # Errors
    /// [`Away`].
    pub(super) async fn wait<T: Send + 'static>(
        &self,
        shard: usize,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Away> {
        let (sender, answer) = oneshot::channel();
        // Whoever asked may have given up.
        let reply = Reply::new(move |answer| drop(sender.send(answer)));
        let port = self.0.ports.get(shard).ok_or(Away)?;
        if !port(ask(reply)) {
            return Err(Away);
        }
        answer.await.map_err(|_| Away)
    }

    /// Asks the shard that a client lives on, or that keeps what is retained for a topic.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn ask_home<T: Send + 'static>(
        &self,
        client_id_or_topic: &str,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Away> {
        self.ask(self.home(client_id_or_topic), ask).await
    }

    /// Closes a client's connection, publishes its will and ends its session; whether there was one.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn kick(&self, client_id: &str) -> Result<bool, Away> {
        let asked = client_id.into();
        self.ask_home(client_id, |reply| Ask::Kick { client_id: asked, reply }).await
    }

    /// Asks each shard, one after the other; the answers are in their order.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn ask_all<T: Send + 'static>(&self, ask: impl Fn(Reply<T>) -> Ask) -> Result<Vec<T>, Away> {
        let mut answers = Vec::with_capacity(self.shards());
        for shard in 0..self.shards() {
            answers.push(self.ask(shard, &ask).await?);
        }
        Ok(answers)
    }

    /// Lists up to `limit` rows over all shards, from a position on and behind `skip` further ones.
    /// `listing` is a variant of [`Listing`].
    ///
    /// # Errors
    /// [`Away`].
    pub async fn list<Q: Clone, R: Send + 'static>(
        &self,
        listing: fn(Box<Cursor<Q, R>>) -> Listing,
        query: &Q,
        from: Position,
        mut skip: u64,
        limit: usize,
    ) -> Result<Listed<R>, Away> {
        let _permit = self.0.listings.acquire().await.map_err(|_| Away)?;
        let mut rows = Vec::new();
        let mut at = from;
        while at.shard < self.shards() {
            let left = (limit - rows.len()).min(DESK_PAGE_ROWS_MAX);
            let wanted = Wanted { from: at.place.clone(), skip, limit: left, count: false };
            let page = self.page_of(at.shard, listing, query, wanted).await?;
            skip -= skip.min(page.matched - page.rows.len() as u64);
            rows.extend(page.rows);
            match page.next {
                Some(place) => {
                    at.place = place;
                    if rows.len() >= limit {
                        return Ok(Listed { rows, next: Some(at) });
                    }
                }
                None => at = Position { shard: at.shard + 1, place: Place::default() },
            }
        }
        Ok(Listed { rows, next: None })
    }

    /// Page `number`, from 1 on, of pages of `limit` rows, and how many rows there are. Pages that are asked for one
    /// after the other begin where the last one ended, so that each row that stays is on one of them.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn page<Q: Clone + fmt::Debug, R: Send + 'static>(
        &self,
        listing: fn(Box<Cursor<Q, R>>) -> Listing,
        query: &Q,
        number: u64,
        limit: usize,
    ) -> Result<Paged<R>, Away> {
        let key = format!("{} {limit} {query:?}", std::any::type_name::<R>());
        let known = self.0.pages.find(&key, number);
        let count = match known.count {
            Some(count) => count,
            None => self.count(listing, query).await?,
        };
        let skip = (number - known.page).saturating_mul(limit as u64);
        let listed = self.list(listing, query, known.position, skip, limit).await?;
        self.0.pages.note(key, number, count, known.count.is_none(), listed.next.clone());
        Ok(Paged { number, limit, count, has_next: listed.next.is_some(), rows: listed.rows })
    }

    /// How many rows a listing has over all shards.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn count<Q: Clone, R: Send + 'static>(
        &self,
        listing: fn(Box<Cursor<Q, R>>) -> Listing,
        query: &Q,
    ) -> Result<u64, Away> {
        let mut count = 0;
        for shard in 0..self.shards() {
            let wanted = Wanted { from: Place::default(), skip: 0, limit: 0, count: true };
            count += self.page_of(shard, listing, query, wanted).await?.matched;
        }
        Ok(count)
    }

    async fn page_of<Q: Clone, R: Send + 'static>(
        &self,
        shard: usize,
        listing: fn(Box<Cursor<Q, R>>) -> Listing,
        query: &Q,
        wanted: Wanted,
    ) -> Result<Page<R>, Away> {
        let query = query.clone();
        self.ask(shard, move |reply| Ask::List(listing(Box::new(Cursor::new(query, wanted, reply))))).await
    }
}
