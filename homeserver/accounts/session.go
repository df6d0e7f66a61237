// SPDX-License-Identifier: Apache-2.0

package accounts

// Session is who makes a request: what an access token stands for.
type Session struct {
	UserID   string // "@alice:example.org"
	DeviceID string
	Guest    bool // an account without a password, allowed to look and little else
	Admin    bool // may use the admin API
	TokenID  int64
}
