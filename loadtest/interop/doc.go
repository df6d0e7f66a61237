// SPDX-License-Identifier: Apache-2.0

// Package interop runs rooms and calls between Trunkboard and the homeservers that other people run: Synapse as Debian ships it,
// and Dendrite where its binary is given. Servers are plain processes on addresses of 127.0.0.0/8, they find each other by their
// server names (an address and a port), and trust an authority made for the test.
//
// The tests run with `make interop`, which fetches Synapse into a folder outside the repository (TRUNKBOARD_INTEROP) and needs
// root for its chroot. TRUNKBOARD_INTEROP_DENDRITE, if set, is a folder with Dendrite's `dendrite` and `generate-keys`.
package interop
