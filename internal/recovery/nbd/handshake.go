package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// negotiate greets the client and answers its options until it has chosen an
// export (c.target is set then) or leaves (io.EOF).
func (c *conn) negotiate(ctx context.Context) error {
	hello := make([]byte, 0, 18)
	hello = binary.BigEndian.AppendUint64(hello, magicInit)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.stream.Write(hello); err != nil {
		return fmt.Errorf("write greeting: %w", err)
	}
	var flags [4]byte
	if _, err := io.ReadFull(c.br, flags[:]); err != nil {
		return fmt.Errorf("read client flags: %w", err)
	}
	f := binary.BigEndian.Uint32(flags[:])
	if f&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("client flags %#x are unknown", f)
	}
	c.noZeroes = f&flagNoZeroes != 0

	for c.target == nil {
		opt, data, err := c.readOption()
		if errors.Is(err, errTooBig) && opt != optExportName {
			err = c.refuse(opt, repErrTooBig, "option data is too long")
		} else if err == nil {
			err = c.answer(ctx, opt, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errTooBig = errors.New("option data is too long")

// readOption reads one option. errTooBig says that its data was skipped.
func (c *conn) readOption() (option, []byte, error) {
	var head [optionHeaderLen]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return 0, nil, fmt.Errorf("read option: %w", err)
	}
	if m := binary.BigEndian.Uint64(head[:]); m != magicOption {
		return 0, nil, fmt.Errorf("option magic %#x is wrong", m)
	}
	opt := option(binary.BigEndian.Uint32(head[8:]))
	n := binary.BigEndian.Uint32(head[12:])
	if n > maxOptionData {
		if _, err := io.CopyN(io.Discard, c.br, int64(n)); err != nil {
			return 0, nil, fmt.Errorf("skip data of option %d: %w", opt, err)
		}
		return opt, nil, fmt.Errorf("option %d: %w", opt, errTooBig)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.br, data); err != nil {
		return 0, nil, fmt.Errorf("read data of option %d: %w", opt, err)
	}
	return opt, data, nil
}

// answer handles one option. An error ends the connection; refusals do not.
func (c *conn) answer(ctx context.Context, opt option, data []byte) error {
	ctx = c.withPeer(ctx)
	if c.srv.cfg.TLS != nil && c.secure == nil && opt != optStartTLS && opt != optAbort {
		return c.demandTLS(opt)
	}
	switch opt {
	case optStartTLS:
		return c.startTLS(ctx, data)
	case optExportName:
		return c.exportName(ctx, string(data))
	case optGo, optInfo:
		return c.info(ctx, opt, data)
	case optList:
		return c.list(ctx, data)
	case optStructuredReply:
		if len(data) != 0 {
			return c.refuse(opt, repErrInvalid, "this option takes no data")
		}
		c.structured = true
		return c.reply(opt, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		return c.metaContext(ctx, opt, data)
	case optAbort:
		// The client may hang up without waiting for the answer.
		if err := c.reply(opt, repAck, nil); err != nil {
			return io.EOF
		}
		return io.EOF
	default:
		return c.refuse(opt, repErrUnsup, "option is not supported")
	}
}

// exportName answers the old way to choose an export, which has no way to say
// no but to hang up.
func (c *conn) exportName(ctx context.Context, name string) error {
	t, err := c.open(ctx, name)
	if err != nil {
		return fmt.Errorf("open export %q: %w", name, err)
	}
	c.choose(t, name)
	msg := binary.BigEndian.AppendUint64(nil, t.size)
	msg = binary.BigEndian.AppendUint16(msg, t.flags(c.structured))
	if !c.noZeroes {
		msg = append(msg, make([]byte, exportPadding)...)
	}
	if _, err := c.stream.Write(msg); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// info answers INFO, and GO, which also enters transmission.
func (c *conn) info(ctx context.Context, opt option, data []byte) error {
	name, wants, err := parseInfo(data)
	if err != nil {
		return c.refuse(opt, repErrInvalid, err.Error())
	}
	t, err := c.open(ctx, name)
	if err != nil {
		return c.refuseExport(opt, name, err)
	}
	msgs := [][]byte{exportInfo(t, c.structured)}
	for _, w := range wants {
		switch w {
		case infoName:
			msgs = append(msgs, append([]byte{0, byte(infoName)}, canonicalName(t, name)...))
		case infoDescription:
			if d := t.export.Description; d != "" {
				msgs = append(msgs, append([]byte{0, byte(infoDescription)}, d...))
			}
		case infoBlockSize:
			msgs = append(msgs, blockSizeInfo())
		}
	}
	for _, m := range msgs {
		if err = c.reply(opt, repInfo, m); err != nil {
			break
		}
	}
	if err == nil {
		err = c.reply(opt, repAck, nil)
	}
	if err != nil || opt == optInfo {
		t.export.release()
		return err
	}
	c.choose(t, name)
	return nil
}

func exportInfo(t *target, structured bool) []byte {
	m := binary.BigEndian.AppendUint16(nil, uint16(infoExport))
	m = binary.BigEndian.AppendUint64(m, t.size)
	return binary.BigEndian.AppendUint16(m, t.flags(structured))
}

func blockSizeInfo() []byte {
	m := binary.BigEndian.AppendUint16(nil, uint16(infoBlockSize))
	m = binary.BigEndian.AppendUint32(m, minBlock)
	m = binary.BigEndian.AppendUint32(m, preferredBlock)
	return binary.BigEndian.AppendUint32(m, maxPayload)
}

func canonicalName(t *target, asked string) string {
	if t.export.Name != "" {
		return t.export.Name
	}
	return asked
}

// list answers LIST with the names that the configuration shows.
func (c *conn) list(ctx context.Context, data []byte) error {
	if len(data) != 0 {
		return c.refuse(optList, repErrInvalid, "this option takes no data")
	}
	if c.srv.cfg.List == nil {
		return c.refuse(optList, repErrPolicy, "this server does not list its exports; ask for one by name")
	}
	names, err := c.srv.cfg.List(ctx)
	if err != nil {
		c.log.Error("list nbd exports", "err", err)
		return c.refuse(optList, repErrPolicy, "exports cannot be listed now; see the server's log")
	}
	for _, name := range names {
		m := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		if err := c.reply(optList, repServer, append(m, name...)); err != nil {
			return err
		}
	}
	return c.reply(optList, repAck, nil)
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT. The one context
// is base:allocation, of devices that know where they have no data.
func (c *conn) metaContext(ctx context.Context, opt option, data []byte) error {
	if opt == optSetMetaContext {
		c.allocation = false // whatever comes of this option
	}
	if !c.structured {
		return c.refuse(opt, repErrInvalid, "negotiate structured replies first")
	}
	name, queries, err := parseMetaContext(data)
	if err != nil {
		return c.refuse(opt, repErrInvalid, err.Error())
	}
	t, err := c.open(ctx, name)
	if err != nil {
		return c.refuseExport(opt, name, err)
	}
	defer t.export.release()

	wanted := opt == optListMetaContext && len(queries) == 0
	for _, q := range queries {
		wanted = wanted || q == contextAllocation || opt == optListMetaContext && q == "base:"
	}
	if wanted && t.extent != nil {
		var id uint32 // reserved in lists
		if opt == optSetMetaContext {
			id = contextAllocationID
			c.allocation, c.contextName = true, name
		}
		m := append(binary.BigEndian.AppendUint32(nil, id), contextAllocation...)
		if err := c.reply(opt, repMetaContext, m); err != nil {
			return err
		}
	}
	return c.reply(opt, repAck, nil)
}

func (c *conn) open(ctx context.Context, name string) (*target, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknownExport, err)
	}
	e, err := c.srv.cfg.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return newTarget(e), nil
}

// choose ends negotiation. Contexts chosen for another export do not count.
func (c *conn) choose(t *target, name string) {
	c.target = t
	c.allocation = c.allocation && c.contextName == name
	c.log = c.log.With("export", canonicalName(t, name))
}

func (c *conn) refuseExport(opt option, name string, err error) error {
	if errors.Is(err, ErrUnknownExport) {
		return c.refuse(opt, repErrUnknown, fmt.Sprintf("no export named %q is served here", name))
	}
	c.log.Error("open nbd export", "export", name, "err", err)
	return c.refuse(opt, repErrUnknown, fmt.Sprintf("export %q cannot be opened now; see the server's log", name))
}

// refuse answers with an error reply and a text for people.
func (c *conn) refuse(opt option, why optionReply, text string) error {
	return c.reply(opt, why, []byte(text))
}

func (c *conn) reply(opt option, kind optionReply, data []byte) error {
	m := make([]byte, 0, 20+len(data))
	m = binary.BigEndian.AppendUint64(m, magicOptionReply)
	m = binary.BigEndian.AppendUint32(m, uint32(opt))
	m = binary.BigEndian.AppendUint32(m, uint32(kind))
	m = binary.BigEndian.AppendUint32(m, uint32(len(data)))
	m = append(m, data...)
	if _, err := c.stream.Write(m); err != nil {
		return fmt.Errorf("write reply to option %d: %w", opt, err)
	}
	return nil
}
