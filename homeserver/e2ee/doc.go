// SPDX-License-Identifier: Apache-2.0

// Package e2ee keeps what end-to-end encryption needs from a server: the public keys of devices, one-time and fallback keys, the
// cross-signing keys and the signatures between all of these, messages from device to device, and backups of room keys that the
// server cannot read (client-server API v1.19, "End-to-end encryption" and "Send-to-Device messaging").
//
// The server is not trusted by the clients, who check every signature themselves; it checks what it can so that junk, forgeries
// and things without bound stay out.
//
// Four streams lead from here to /sync: to-device messages (ToDevice, DeleteToDevice), changed device lists (DeviceListsChanged),
// and the counts of one-time and fallback keys (KeyCounts). Each change takes a position of the one stream and leaves a
// storage.Note; the note of a to-device message carries the message, so that delivering it to a waiting sync needs no SQL.
package e2ee
