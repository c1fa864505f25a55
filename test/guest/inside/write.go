package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"lifeboat/test/stamp"
)

// write finds what the targets of a plan (JSON) hold and goes on from there, for ever.
// floor is the last operation that the host knows to be durable: to hold less is an
// error. What it prints is a stamp.Log, with lines about itself between.
func write(args []string) error {
	w, floor, err := open(args)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // what was to be durable is
	fmt.Print(stamp.Begin)
	found, err := w.Find(floor + 1)
	if err != nil {
		fmt.Printf("BROKEN %v\n", err)
		return err
	}
	if found.Last() < floor {
		fmt.Printf("BROKEN %s are here, and %d were durable\n", found, floor)
		return fmt.Errorf("%s are here, and %d were durable", found, floor)
	}
	fmt.Printf("WRITING after %s\n", found)
	err = w.Run(context.Background(), found.Last()+1, func(number uint64) error {
		_, err := os.Stdout.WriteString(stamp.Entry(number, time.Now()))
		return err
	})
	fmt.Printf("BROKEN %v\n", err)
	return err
}

// open opens the targets of a plan (JSON), which comes with a number.
func open(args []string) (*stamp.Writer, uint64, error) {
	if len(args) != 2 {
		return nil, 0, fmt.Errorf("%d arguments, want a plan and a number", len(args))
	}
	var plan stamp.Plan
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return nil, 0, fmt.Errorf("plan: %w", err)
	}
	number, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return nil, 0, err
	}
	w, err := stamp.Open(plan)
	return w, number, err
}

// check prints what prefixes of a plan the targets hold, none beyond a number of
// operations, as JSON.
func check(args []string) error {
	w, upTo, err := open(args)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // what was to be durable is
	found, err := w.Find(upTo)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
