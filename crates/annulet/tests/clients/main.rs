//! Clients that are not ours, at clusters of real processes: the `redis` crate, redis-py (with its own tests), ioredis, redis-cli and redis-benchmark,
//! the binary's own shell, and our own Rust client. What they see is what users see.
//!
//! Most tests share two clusters and take turns at them; those that bring nodes down, or need a password, have their own.
//! The others' programs have to be there: `pip install redis==5.2.1` (or ANNULET_TEST_PYTHON names an interpreter that
//! has it) and `apt install redis-tools`; [`conformance`] needs redis-server; node.rs and redis_py_suite.rs say what they need.

mod bulk_load;
mod cluster_aware;
mod cluster_file;
mod conformance;
mod damaged;
mod demo;
mod doors;
mod durable;
mod elastic;
mod failover;
mod full_disk;
mod grpc;
mod hostile;
mod http;
mod limits;
mod lines;
mod local_cluster;
mod look;
mod node;
mod observed;
mod operators;
mod password;
mod plain;
mod pressure;
mod python;
mod redis_py_suite;
mod redis_tools;
mod rust_client;
mod script;
mod served_nodes;
mod shell;
mod typed;
mod upgrade;
mod written;
