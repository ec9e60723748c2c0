//! The list of bans, and its copies on the shards, of which the first one keeps them on the disk, where there is one.

use super::{Away, Desk};
use crate::auth::{Ban, Banned, Bans};
use crate::desk::{Ask, Flapped};
use crate::time::Moment;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Mutex;

/// All bans. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct BanList(Arc<Mutex<Bans>>);

impl BanList {
    /// What an earlier run left.
    pub fn new(kept: Vec<(Arc<Ban>, Moment)>) -> BanList {
        let mut bans = Bans::default();
        kept.into_iter().for_each(|(ban, until)| bans.put(ban, until));
        BanList(Arc::new(Mutex::new(bans)))
    }

    /// Puts a ban, in place of an earlier one about the same, on all shards before it returns. False: there is no room
    /// for it.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn put(&self, desk: &Desk, ban: Ban) -> Result<bool, Away> {
        let (list, desk) = (self.clone(), desk.clone());
        // A task of its own, so that a request that is given up leaves no shard without it. Changes go one after the
        // other, so that all shards see them in one order.
        let put = async move {
            let mut bans = list.0.lock().await;
            bans.expire(desk.now(), usize::MAX);
            if !bans.has_room(&ban) {
                return Ok(false);
            }
            let (until, ban) = (end(&desk, &ban), Arc::new(ban));
            bans.put(ban.clone(), until);
            desk.ask_all(|reply| Ask::Ban { ban: ban.clone(), until, reply }).await.map(|_| true)
        };
        tokio::spawn(put).await.unwrap_or(Err(Away))
    }

    /// Takes a ban back, on all shards before it returns; whether there was one.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn remove(&self, desk: &Desk, who: Banned) -> Result<bool, Away> {
        let (list, desk) = (self.clone(), desk.clone());
        let remove = async move {
            let mut bans = list.0.lock().await;
            bans.expire(desk.now(), usize::MAX);
            let known = bans.remove(&who).is_some();
            // A shard may have one of its own.
            let there = desk.ask_all(|reply| Ask::Unban { who: who.clone(), reply }).await?;
            Ok(known || there.contains(&true))
        };
        tokio::spawn(remove).await.unwrap_or(Err(Away))
    }

    /// How many hold, and some of them, in the order in which they were put.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn page(&self, desk: &Desk, skip: usize, limit: usize) -> Result<(usize, Vec<Arc<Ban>>), Away> {
        let (list, desk) = (self.clone(), desk.clone());
        let page = async move {
            let mut bans = list.0.lock().await;
            bans.expire(desk.now(), usize::MAX);
            for flapped in desk.ask_all(Ask::Flapped).await?.into_iter().flatten() {
                let (until, ban) = (flapped.until, ban_of(&desk, flapped));
                if until > desk.now() && bans.has_room(&ban) {
                    bans.put(Arc::new(ban), until);
                }
            }
            Ok((bans.len(), bans.iter().skip(skip).take(limit).cloned().collect()))
        };
        tokio::spawn(page).await.unwrap_or(Err(Away))
    }
}

/// The ban of a client that came and went too often.
fn ban_of(desk: &Desk, flapped: Flapped) -> Ban {
    let second = |moment| desk.time_of_day_ms(moment) / 1_000;
    Ban {
        by: "flapping".into(),
        reason: format!("its connections ended {} times", flapped.count).into(),
        at_s: second(flapped.at),
        until_s: second(flapped.until),
        who: Banned::ClientId(flapped.client_id),
    }
}

/// When a ban ends, on the shards' clock.
fn end(desk: &Desk, ban: &Ban) -> Moment {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left_ms = u128::from(ban.until_s).saturating_mul(1_000).saturating_sub(now.as_millis());
    desk.now().plus_ms(u64::try_from(left_ms).unwrap_or(u64::MAX))
}
