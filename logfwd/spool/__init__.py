"""Batches and source positions on disk until they are acknowledged: one SQLite file per original stream.

`store.py` is a spool in use, `committer.py` its thread; `backlog.py` decides, in memory, what waits: it knows the
first 400 batches of a stream one by one, and the others by their sums (`beyond.py`); `notes.py` turns decisions into
SQL; `keys.py` remembers requests of clients; `salvage.py` and `verify.py` deal with damage.

FILES. STREAM.spool is an SQLite database for one original stream and its twins: pages of 16 KiB, write-ahead log,
synchronous = FULL, auto_vacuum = INCREMENTAL. These files may be next to it:

    .spool-wal, -shm      the log, and its index in memory; an open spool has a log
    .spool.part, .ready   a new file that is being written, and one that is complete but not yet in place
    .spool.suspect        the reason why the file has to be replaced at the next open
    .spool.scratch        a copy that salvage reads; can be deleted
    .spool.damaged-TIME   a damaged file that was replaced, with its log; never changed again
    .reserve              16 MiB, less on a small disk, that are released when the disk is full

TABLES of version 2 (`schema.py`). Numbers are never negative unless noted.

    meta          key, value   version        of the format, as in the header (PRAGMA user_version)
                               forwarder_id   random, for the life of the spool
                               open           1 while a process uses the file: there must be a log then
                               definition     JSON: the original stream and its twins as last configured
                               roots          JSON: root page of each table; only in an upgraded file
    runs          one row per run that has batches or is being sealed into: the grant of a receiver (producer_id is -1
                  before it), the next sequence, and the last acknowledged one (-1: none)
    blobs         payloads: each is a Kafka record batch, unstamped; a twin shares the blobs of its original
    batches       one row per waiting batch and stream; base_sequence is the stamp, NULL before
    dead_letters  batches that can never be stored: payload, reason (code, text) and time
    positions     where a source continues: the kind of source that reads the value, the value in that source's own
                  encoding, and the wall-clock second after which it may be deleted (NULL: never)
    totals        per stream, records by outcome and the number of resets since the spool was created
    keys          how much of each request from a client is durable (`keys.py`)

IDS. `batches.id` is a multiple of 2^20 for a sealed batch, which leaves room to halve it in place down to single
records; within a run the ids are in the order of sending. `blobs.id` and `keys.id` count up from 1, and the ids in
`keys` have no gaps.

INVARIANTS after every transaction. Batches are committed together with the positions after their records. Every blob
has at least one row in `batches`; every row in `batches` has its blob and its run. Within a run stamps ascend without
overlap and stay below the next sequence. For each stream, accepted = acknowledged + waiting + dropped + dead_lettered.
The newest row of a key says how much of the request is in the spool.

VERSIONS. Version 1 has no `keys` and `definition`, no totals `sampled`, `limited` and `filtered`, no auto_vacuum,
and positions of files only. It is upgraded in one transaction when it is opened for writing; commands that
only read show it unchanged. The new tables of an upgraded file can begin at any page (`roots`), until the file is
rewritten when it is nearly empty (`shrink.py`). A program refuses a newer version if the header and `meta` agree
on it; if they disagree, the file is damaged.

A spool file appears complete: it is written under another name, synced, and renamed into place. So a file that is empty
or lacks a table is damaged; no crash can leave one. `install` is the only way into place and can be repeated after a
crash at any of its steps: an existing file is never overwritten, it is renamed to NAME.damaged-TIME. The first page of
a new file is identical in every spool of a version: salvage depends on it.
"""
