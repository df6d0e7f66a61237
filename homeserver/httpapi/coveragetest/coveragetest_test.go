// SPDX-License-Identifier: Apache-2.0

package coveragetest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestAFileThatSaysSomethingElseIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "COVERAGE.md")
	if Compare(file, []byte("a"), false) == nil {
		t.Error("a file that is not there says what was found")
	}
	if err := Compare(file, []byte("a"), true); err != nil {
		t.Fatal(err)
	}
	if err := Compare(file, []byte("a"), false); err != nil {
		t.Error(err)
	}
	if Compare(file, []byte("b"), false) == nil {
		t.Error("another text passes")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "a" {
		t.Errorf("comparing wrote %q, %v", b, err)
	}
}

func TestAnAnswerIsPassedOnAndItsStatusKept(t *testing.T) {
	for _, status := range []int{0, 200, 404} {
		rec := httptest.NewRecorder()
		a := &Answer{ResponseWriter: rec}
		if status != 0 {
			a.WriteHeader(status)
		}
		if _, err := a.Write([]byte("x")); err != nil || http.NewResponseController(a).Flush() != nil {
			t.Error(err)
		}
		if want := max(status, 200); a.Status() != want || rec.Code != want || rec.Body.String() != "x" {
			t.Errorf("%d: kept %d, sent %d %q", status, a.Status(), rec.Code, rec.Body)
		}
	}
}
