//! What the shards tell: complete, and in step with what clients did.

use crate::common::{Peer, ids};
use crate::served;
use ringmq::codec::{ReasonCode, Version};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn clients_of_all_shards_are_listed_and_one_is_kicked() {
    served(&[], |broker, http| {
        let names = ids("listed", 40);
        let mut peers: Vec<Peer> = names.iter().map(|id| Peer::connect(broker, Version::V5, id)).collect();
        let listed = http.json("/api/v4/clients");
        let found: BTreeSet<_> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["clientid"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, names.iter().cloned().collect());
        let path = format!("/api/v4/clients/{}", names[7]);
        let one = http.json(&path);
        assert_eq!(one["data"][0]["connected"], true, "{one}");
        assert_eq!(one["data"][0]["recv_pkt"], 1, "{one}");
        assert_eq!(http.delete(&path).json(), json!({"code": 0}));
        peers[7].expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION);
        let gone = http.delete(&path);
        assert_eq!((gone.status, &gone.json()["code"]), (404, &json!(112)));
    });
}
