// SPDX-License-Identifier: Apache-2.0

// Package drills breaks a running server on purpose and looks whether it kept its word: what a client was told is stored must be
// there afterwards, once, and in a stream without gaps.
//
// Each drill starts the real binary, lets several users send, notes every event id that was acknowledged, and then kills the
// server with SIGKILL, crashes PostgreSQL under it, or cuts the power: the disk is a file with a file system of its own, everything
// is frozen, the file is copied, and the copy is what the disk had. (SIGKILL alone never shows a missing fsync: what a process
// has written stays in the kernel's memory.) Sends whose answer was lost are sent again with the same transaction id, as clients
// do, and must not become two events.
//
// `make test` runs a few rounds, `make test-long` (TRUNKBOARD_TEST_LONG=1) the full number. Each drill logs one line of counts.
package drills
