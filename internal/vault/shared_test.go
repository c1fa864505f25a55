package vault

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestSharedListsDoNotMove grows lists from any older list, as a fenced writer does,
// and checks that all keep what they had.
func TestSharedListsDoNotMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists, want := []shared[int]{newShared[int](rapid.IntRange(0, 4).Draw(t, "room"))}, [][]int{nil}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			from := rapid.IntRange(max(0, len(lists)-4), len(lists)-1).Draw(t, "from")
			lists = append(lists, lists[from].with(i))
			want = append(want, append(want[from][:len(want[from]):len(want[from])], i))
		}
		for i := range lists {
			if fmt.Sprint(lists[i].items) != fmt.Sprint(append([]int{}, want[i]...)) {
				t.Fatalf("list %d is %v, want %v", i, lists[i].items, want[i])
			}
		}
	})
}
