// SPDX-License-Identifier: Apache-2.0

package signalling_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkboard/trunkboard/signalling"
)

func TestRefusalsCarryTheSpecificationsCodes(t *testing.T) {
	for _, c := range []struct {
		err    *signalling.Error
		status int
		code   string
	}{
		{signalling.Forbidden("x"), http.StatusForbidden, "M_FORBIDDEN"},
		{signalling.NotFound("x"), http.StatusNotFound, "M_NOT_FOUND"},
		{signalling.Unrecognized(), http.StatusNotFound, "M_UNRECOGNIZED"},
		{signalling.BadJSON("x"), http.StatusBadRequest, "M_BAD_JSON"},
		{signalling.NotJSON("x"), http.StatusBadRequest, "M_NOT_JSON"},
		{signalling.InvalidParam("x"), http.StatusBadRequest, "M_INVALID_PARAM"},
		{signalling.MissingParam("x"), http.StatusBadRequest, "M_MISSING_PARAM"},
		{signalling.TooLarge("x"), http.StatusRequestEntityTooLarge, "M_TOO_LARGE"},
		{signalling.UnknownToken(true), http.StatusUnauthorized, "M_UNKNOWN_TOKEN"},
		{signalling.LimitExceeded(time.Second), http.StatusTooManyRequests, "M_LIMIT_EXCEEDED"},
	} {
		if c.err.Status != c.status || c.err.Code != c.code || c.err.Message == "" {
			t.Errorf("got %+v, want %d %s", c.err, c.status, c.code)
		}
	}
}

func TestFieldsAndCausesAreAddedToACopy(t *testing.T) {
	base := signalling.UnknownToken(true)
	cause := errors.New("the cause")
	more := base.With("retry_after_ms", 5).Because(cause)
	if diff := cmp.Diff(map[string]any{"soft_logout": true}, base.Fields); diff != "" || base.Cause != nil {
		t.Errorf("the original changed: %s %v", diff, base.Cause)
	}
	if diff := cmp.Diff(map[string]any{"soft_logout": true, "retry_after_ms": 5}, more.Fields); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(more, cause) || !strings.Contains(more.Error(), "the cause") {
		t.Errorf("the cause is lost: %v", more)
	}
}

func TestAnErrorIsFoundInItsWrappingAndAnyOtherBecomesInternal(t *testing.T) {
	refusal := signalling.Forbidden("no")
	if got := signalling.AsError(fmt.Errorf("while sending: %w", refusal)); got != refusal {
		t.Errorf("got %v", got)
	}
	secret := errors.New("password of the database is hunter2")
	got := signalling.AsError(secret)
	if got.Status != http.StatusInternalServerError || got.Code != "M_UNKNOWN" || strings.Contains(got.Message, "hunter2") {
		t.Errorf("a stranger sees %+v", got)
	}
	if !errors.Is(got, secret) {
		t.Error("the log does not see the cause")
	}
}

func TestTheSystemClockRunsAndStopsFunctions(t *testing.T) {
	clock := signalling.SystemClock{}
	if d := time.Since(clock.Now()); d < 0 || d > time.Minute {
		t.Errorf("the clock is off by %v", d)
	}
	ran := make(chan struct{})
	clock.AfterFunc(time.Millisecond, func() { close(ran) })
	<-ran
	if stop := clock.AfterFunc(time.Hour, func() {}); !stop() || stop() {
		t.Error("stop must report true once and false afterwards")
	}
}
