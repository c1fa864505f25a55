package server

import (
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/vault/retention"
)

// The journal window decides which recovery points upkeep drops, so whoever does upkeep
// must know it: a start writes it to the data directory, and the offline verbs read it
// there.

// DefaultJournal is the journal window of a first start that names none.
const DefaultJournal time.Duration = retention.DefaultJournal

// CheckJournal refuses a window that cannot be meant; nil: none was named.
func CheckJournal(journal *time.Duration) error {
	if journal != nil && (*journal < 0 || *journal > maxJournal) {
		return fmt.Errorf("--journal %s: want 0 to %d days (%s)", *journal, maxJournal/(24*time.Hour), maxJournal)
	}
	return nil
}

// Journal returns the journal window that the directory keeps. known is false when no
// start has written it yet, as in one that was made by an earlier version or rebuilt.
func (d *DataDir) Journal() (window time.Duration, known bool, err error) {
	if d.Settings.Journal == "" {
		return 0, false, nil
	}
	window, err = time.ParseDuration(d.Settings.Journal)
	if err == nil {
		err = CheckJournal(&window)
	}
	if err != nil {
		return 0, false, fmt.Errorf("data directory %s: %s: \"journal\": %w. Write the window there that was meant, such as \"72h\"", d.Path, settingsFile, err)
	}
	return window, true, nil
}

// keepJournal returns the window of this start, the one named or else the one kept, and
// notes it in the settings, which are still to be written.
func (d *DataDir) keepJournal(named *time.Duration) (time.Duration, error) {
	window, known, err := d.Journal()
	switch {
	case named != nil:
		window = *named
	case err != nil:
		return 0, err
	case !known:
		window = DefaultJournal
	}
	d.Settings.Journal = window.String()
	return window, nil
}

// errJournalUnknown keeps upkeep from guessing, which could drop points that the server keeps.
var errJournalUnknown = errors.New("the data directory does not say for how long its server keeps every recovery point " +
	"(it was rebuilt, or made by an earlier version): start the server once, with the --journal that is meant, or name it with --journal")
