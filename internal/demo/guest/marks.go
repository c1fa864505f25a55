package guest

import (
	"fmt"
	"regexp"
	"strconv"
)

// What a guest prints on its console. "order N durable" comes after fsync has
// returned; "WORKLOAD RUNNING" after the first such order of this boot.
var (
	Booted          = regexp.MustCompile(`^GUEST BOOTED host=(\S+) kernel=(\S+)`)
	OrdersFound     = regexp.MustCompile(`^ORDERS FOUND first=(\d+) last=(\d+) missing=(\d+) torn=(\d+)(?: repeated=(\d+))?$`)
	OrderDurable    = regexp.MustCompile(`^order (\d+) durable$`)
	WorkloadRunning = regexp.MustCompile(`^WORKLOAD RUNNING$`)
	AgentEnded      = regexp.MustCompile(`^AGENT ENDED status=(\d+) (.*)`)
)

// Ledger is what a guest found when it checked its orders at boot.
type Ledger struct {
	First, Last int // 0 when there are none
	Missing     int // numbers up to Last that are not there
	Torn        int // lines whose checksum does not fit
	Repeated    int // numbers that do not rise
}

// Whole tells whether the ledger is exactly the orders 1 to Last.
func (l Ledger) Whole() bool { return l.Missing == 0 && l.Torn == 0 && l.Repeated == 0 }

// ParseLedger reads a line that matched OrdersFound.
func ParseLedger(m Match) (Ledger, error) {
	if len(m.Groups) != 6 {
		return Ledger{}, fmt.Errorf("not a ledger line: %q", m.Text)
	}
	var numbers [5]int
	for i, digits := range m.Groups[1:] {
		if digits == "" {
			continue
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return Ledger{}, fmt.Errorf("ledger line %q: %w", m.Text, err)
		}
		numbers[i] = n
	}
	return Ledger{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]}, nil
}

// LastDurable returns the number of the last order that the console called
// durable, 0 for none.
func (c *Console) LastDurable() int {
	m, found := c.Last(OrderDurable)
	if !found {
		return 0
	}
	n, _ := strconv.Atoi(m.Groups[1]) // the pattern admits digits only
	return n
}
