// SPDX-License-Identifier: Apache-2.0

package speakers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpeechIsHeardAndNoiseIsNot(t *testing.T) {
	for _, c := range []struct {
		name    string
		level   uint8
		packets int
		want    bool
	}{{"speech", 20, 20, true}, {"a click", 0, 3, false}, {"noise", 60, 20, false}, {"silence", 127, 20, false}} {
		var m Meter
		for range c.packets {
			m.Observe(c.level)
		}
		level, speaking := m.Look()
		if speaking != c.want || speaking != (level > 0) || level > 1 {
			t.Errorf("%s: level %v, speaking %v", c.name, level, speaking)
		}
	}
}

func TestLouderIsHigher(t *testing.T) {
	var loud, soft Meter
	for range 20 {
		loud.Observe(20)
		soft.Observe(30)
	}
	l, _ := loud.Look()
	s, _ := soft.Look()
	if l <= s {
		t.Errorf("loud %v, soft %v", l, s)
	}
}

func TestASpeakerFadesAfterFallingSilent(t *testing.T) {
	var m Meter
	for range 20 {
		m.Observe(10)
	}
	m.Look()
	for range 8 {
		m.Look()
	}
	if level, speaking := m.Look(); speaking {
		t.Errorf("still %v", level)
	}
}

func TestBoardTellsOnlyChanges(t *testing.T) {
	var b Board
	if got := b.Change([]Speaker{{ID: "a", Level: 0.3, Active: true}, {ID: "b"}}); !cmp.Equal(got, []Speaker{{ID: "a", Level: 0.375, Active: true}}) {
		t.Errorf("first: %v", got)
	}
	if got := b.Change([]Speaker{{ID: "a", Level: 0.31, Active: true}}); len(got) != 0 {
		t.Errorf("the same again: %v", got)
	}
	if got := b.Current(); !cmp.Equal(got, []Speaker{{ID: "a", Level: 0.375, Active: true}}) {
		t.Errorf("for a newcomer: %v", got)
	}
	if got := b.Change(nil); !cmp.Equal(got, []Speaker{{ID: "a"}}) {
		t.Errorf("gone: %v", got)
	}
}
