//! The server over real sockets, with a tiny model whose weights are random.
//!
//! Long forms of some tests run as often as the environment says, such as `LOLM_TEST_TIMES=100`.
mod answers;
mod browser;
mod client;
mod endings;
mod hostile;
mod load;
mod page;
mod requests;
mod server;
