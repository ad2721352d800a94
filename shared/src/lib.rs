//! What Lockgate's device, server and operator's tools must agree on: plain data and plain
//! functions, without files, sockets, clocks or dice.
//!
//! | to find out | open |
//! |---|---|
//! | whether a device may install now, and every reason against it | [`eligibility`] |
//! | what a device checks before it believes that a rollout is open | [`pace`] |
//! | what people sign, and how signatures are counted | [`act`], [`policy`] |
//! | what a release says of itself, and the ladder it climbs | [`manifest`] |
//! | by which hours, counts and shares a stage is a randomised trial | [`terms`] |
//! | in which cohort a device stands, by grants and policy | [`grant`] |
//! | how far a rollout is open, what is stopped | [`rollout`] |
//! | the signed way back from a release | [`recall`] |
//! | which groups a device belongs to, and its place in a rollout | [`group`], [`mod@bucket`] |
//! | pins, maintenance windows, freezes, and what ends them | [`pin`], [`window`], [`loosening`] |
//! | the bytes between device and server | [`wire`] |
//! | how a type is read from JSON and written to it | [`json`] |
//! | how an error is told to people and to programs | [`failure`] |
//! | how a text becomes shorter | [`mod@cut`] |
//! | how sets and maps are filled without a sort for each | [`mod@gather`] |
//! | every bound on what comes from outside | [`limits`] |

pub mod act;
pub mod bucket;
pub mod count;
pub mod cut;
pub mod eligibility;
pub mod facts;
pub mod failure;
pub mod gather;
pub mod grant;
pub mod group;
pub mod id;
pub mod json;
pub mod limits;
pub mod loosening;
pub mod manifest;
pub mod pace;
pub mod pin;
pub mod policy;
pub mod recall;
pub mod rollout;
pub mod sign;
pub mod terms;
pub mod time;
pub mod version;
pub mod window;
pub mod wire;
