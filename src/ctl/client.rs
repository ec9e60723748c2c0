//! Requests to the broker's HTTP API, one after the other.

use super::CtlArgs;
use crate::limits::CTL_ANSWER_MS_MAX;
use serde_json::Value;
use std::time::Duration;
use ureq::http::Request;
use ureq::{Agent, Error};

/// A broker's API, and who asks.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: String,
}

impl Client {
    pub fn new(args: &CtlArgs) -> Client {
        let given = |option: &Option<String>, name: &str, default: &str| {
            option.clone().or_else(|| std::env::var(name).ok()).unwrap_or_else(|| default.to_owned())
        };
        let url = given(&args.url, "RINGMQCTL_URL", "http://127.0.0.1:8081");
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        let token = given(&args.token, "RINGMQCTL_TOKEN", "");
        let authorization = if token.is_empty() {
            let user = given(&args.user, "RINGMQCTL_USER", "admin");
            let password = given(&args.password, "RINGMQCTL_PASSWORD", "public");
            format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
        } else {
            format!("Bearer {token}")
        };
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(CTL_ANSWER_MS_MAX)))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Client { agent: config.new_agent(), url: url.trim_end_matches('/').to_owned(), authorization }
    }

    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.send("GET", path, None)
    }

    /// The answer, if it is one of success.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}{path}", self.url);
        let text = body.map(Value::to_string).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(&url).header("authorization", &self.authorization);
        let sent = if body.is_some() {
            let request = request.header("content-type", "application/json").body(text);
            self.agent.run(request.map_err(|error| format!("{url}: {error}"))?)
        } else {
            self.agent.run(request.body(()).map_err(|error| format!("{url}: {error}"))?)
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status {
            200 => Ok(answer),
            401 => {
                Err("the broker refused the credentials; give --user and --password, or --token".to_owned())
            }
            _ => {
                let said = answer["message"].as_str().or_else(|| answer["error"]["message"].as_str());
                Err(format!("the broker answered {status}: {}", said.unwrap_or("nothing more")))
            }
        }
    }

    fn unreachable(&self, error: &Error) -> String {
        format!("no broker answers at {}: {error}; is it running, and is --url its http.listen?", self.url)
    }
}

/// As RFC 4648 has it, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain(&[0, 0]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn credentials_are_written_as_the_standard_has_it() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("admin:public", "YWRtaW46cHVibGlj")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
