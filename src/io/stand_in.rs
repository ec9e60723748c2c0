//! stand in
#![allow(missing_docs)]
use super::*;
pub type Driver<H> = Epoll<H>;
#[derive(Clone, Copy, Debug)]
pub enum IoMode {
    Auto,
    Uring,
    Epoll,
}
#[derive(Clone, Debug)]
pub struct Chosen;
impl Chosen {
    pub fn warning(&self) -> Option<String> {
        None
    }
    pub fn describe(&self) -> String {
        "epoll".into()
    }
}
pub fn choose(_: IoMode) -> Result<Chosen, String> {
    Ok(Chosen)
}
pub fn open<H: Send>(_: &Chosen, o: &DriverOptions) -> std::io::Result<Driver<H>> {
    Epoll::new(o)
}
pub fn raise_open_files() {}
