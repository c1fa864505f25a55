package replication

import (
	"fmt"
	"slices"
	"time"
)

// The payload of each message, field by field. docs/formats/replication.md has
// the same tables in words; a test holds the two together.

const magic = "LIFEBOAT"

func newMessage(k Kind) (Message, error) {
	switch k {
	case KindHello:
		return new(Hello), nil
	case KindWelcome:
		return new(Welcome), nil
	case KindDisks:
		return new(Disks), nil
	case KindVolumes:
		return new(Volumes), nil
	case KindDigestRequest:
		return new(DigestRequest), nil
	case KindDigests:
		return new(Digests), nil
	case KindBegin:
		return new(Begin), nil
	case KindData:
		return new(Data), nil
	case KindZero:
		return new(Zero), nil
	case KindCommit:
		return new(Commit), nil
	case KindAck:
		return new(Ack), nil
	case KindRefused:
		return new(Refused), nil
	case KindCredit:
		return new(Credit), nil
	case KindPointRequest:
		return new(PointRequest), nil
	case KindConfig:
		return new(Config), nil
	case KindHeartbeat:
		return new(Heartbeat), nil
	case KindProgress:
		return new(Progress), nil
	case KindInventory:
		return new(Inventory), nil
	case KindError:
		return new(Error), nil
	case KindBye:
		return new(Bye), nil
	case KindRenewal:
		return new(Renewal), nil
	case KindCreditRequest:
		return new(CreditRequest), nil
	case KindCertificate:
		return new(Certificate), nil
	}
	return nil, fmt.Errorf("%w: unknown kind %d", ErrMalformed, k)
}

func (*Hello) kind() Kind         { return KindHello }
func (*Welcome) kind() Kind       { return KindWelcome }
func (*Disks) kind() Kind         { return KindDisks }
func (*Volumes) kind() Kind       { return KindVolumes }
func (*DigestRequest) kind() Kind { return KindDigestRequest }
func (*Digests) kind() Kind       { return KindDigests }
func (*Begin) kind() Kind         { return KindBegin }
func (*Data) kind() Kind          { return KindData }
func (*Zero) kind() Kind          { return KindZero }
func (*Commit) kind() Kind        { return KindCommit }
func (*Ack) kind() Kind           { return KindAck }
func (*Refused) kind() Kind       { return KindRefused }
func (*Credit) kind() Kind        { return KindCredit }
func (*PointRequest) kind() Kind  { return KindPointRequest }
func (*Config) kind() Kind        { return KindConfig }
func (*Heartbeat) kind() Kind     { return KindHeartbeat }
func (*Progress) kind() Kind      { return KindProgress }
func (*Inventory) kind() Kind     { return KindInventory }
func (*Error) kind() Kind         { return KindError }
func (*Bye) kind() Kind           { return KindBye }
func (*Renewal) kind() Kind       { return KindRenewal }
func (*Certificate) kind() Kind   { return KindCertificate }
func (*CreditRequest) kind() Kind { return KindCreditRequest }

func (m *Hello) encode(e *encoder) {
	e.raw([]byte(magic))
	e.u16(m.MinVersion)
	e.u16(m.MaxVersion)
	e.raw(m.Instance[:])
	e.text(m.Software)
}

func (m *Hello) decode(d *decoder) {
	if string(d.take(len(magic))) != magic {
		d.fail("not a Lifeboat agent")
	}
	m.MinVersion, m.MaxVersion = d.u16(), d.u16()
	if m.MinVersion > m.MaxVersion {
		d.fail("versions %d to %d", m.MinVersion, m.MaxVersion)
	}
	d.into(m.Instance[:])
	m.Software = d.text()
	d.b = nil // later versions may say more
}

func (m *Welcome) encode(e *encoder) {
	e.u16(m.Version)
	e.u64(m.HeadNumber)
	e.raw(m.HeadHash[:])
	e.u64(m.DigestSeed)
	e.flag(m.Sealed)
	e.moment(m.PointTaken)
	e.u32(m.Credit)
	m.Settings.encodeFixed(e)
	e.text(m.Software)
	if m.Version >= AuthorVersion {
		e.raw(m.Author[:])
	}
	m.Settings.encodeLater(e)
}

func (m *Welcome) decode(d *decoder) {
	m.Version = d.u16()
	m.HeadNumber = d.u64()
	d.into(m.HeadHash[:])
	m.DigestSeed = d.u64()
	m.Sealed = d.flag()
	m.PointTaken = d.moment()
	m.Credit = d.u32()
	m.Settings.decodeFixed(d)
	m.Software = d.text()
	if m.Version >= AuthorVersion {
		d.into(m.Author[:])
	}
	m.Settings.decodeLater(d)
	if m.Credit < 2*MaxData {
		d.fail("credit of %d bytes holds no message", m.Credit)
	}
}

func (m *Config) encode(e *encoder) { m.encodeFixed(e); m.encodeLater(e) }
func (m *Config) decode(d *decoder) { m.decodeFixed(d); m.decodeLater(d) }

// What version 1 has of the settings, and what came later, which ends its message.
func (m *Config) encodeFixed(e *encoder) { e.millis(m.EpochSpacing); e.u32(m.ThrottleMbps) }
func (m *Config) decodeFixed(d *decoder) { m.EpochSpacing = d.millis(); m.ThrottleMbps = d.u32() }

func (m *Config) encodeLater(e *encoder) {
	if m.HoldNewDisks {
		e.flag(true)
	}
}

func (m *Config) decodeLater(d *decoder) {
	if len(d.b) > 0 {
		m.HoldNewDisks = d.flag()
	}
}

func (m *Disks) encode(e *encoder) {
	if len(m.Disks) > MaxDisks {
		e.fail("%d disks, at most %d", len(m.Disks), MaxDisks)
	}
	e.u16(uint16(len(m.Disks)))
	for _, disk := range m.Disks {
		e.str(disk.Device, MaxDevice)
		e.u64(uint64(disk.Size))
	}
	states := m.DropOthers || slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.State != DiskPresent })
	if !states && !slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.Identity != "" }) {
		return // as version 1 has it
	}
	for _, disk := range m.Disks {
		e.str(disk.Identity, MaxIdentity)
	}
	if !states {
		return // as versions before ApartVersion have it
	}
	e.flag(m.DropOthers)
	for _, disk := range m.Disks {
		e.u8(uint8(disk.State))
	}
}

func (m *Disks) decode(d *decoder) {
	m.Disks = make([]Disk, d.count(int(d.u16()), MaxDisks, 10))
	for i := range m.Disks {
		m.Disks[i] = Disk{Device: d.str(MaxDevice), Size: d.size()}
	}
	if len(d.b) == 0 {
		return
	}
	for i := range m.Disks {
		m.Disks[i].Identity = d.str(MaxIdentity)
	}
	if len(d.b) == 0 {
		return
	}
	m.DropOthers = d.flag()
	for i := range m.Disks {
		if m.Disks[i].State = DiskState(d.u8()); m.Disks[i].State > DiskLeft {
			d.fail("disk in state %d", m.Disks[i].State)
		}
	}
}

func (m *Volumes) encode(e *encoder) {
	e.u16(uint16(len(m.Volumes)))
	for _, v := range m.Volumes {
		e.u32(v.ID)
		e.flag(v.Known)
	}
	if !slices.ContainsFunc(m.Volumes, func(v Volume) bool { return v.Apart }) {
		return // as versions before ApartVersion have it
	}
	for _, v := range m.Volumes {
		e.flag(v.Apart)
	}
}

func (m *Volumes) decode(d *decoder) {
	m.Volumes = make([]Volume, d.count(int(d.u16()), MaxDisks, 5))
	for i := range m.Volumes {
		m.Volumes[i] = Volume{ID: d.u32(), Known: d.flag()}
	}
	if len(d.b) == 0 {
		return
	}
	for i := range m.Volumes {
		m.Volumes[i].Apart = d.flag()
	}
}

func (m *DigestRequest) encode(e *encoder) { e.u32(m.Volume); e.u64(m.First); e.u32(m.Count) }

func (m *DigestRequest) decode(d *decoder) {
	m.Volume, m.First, m.Count = d.u32(), d.u64(), d.u32()
	if m.Count == 0 || m.Count > MaxDigests {
		d.fail("%d digests wanted, 1 to %d", m.Count, MaxDigests)
	}
}

func (m *Digests) encode(e *encoder) {
	e.u32(m.Volume)
	e.u64(m.First)
	e.u32(uint32(len(m.Digests)))
	for i := range m.Digests {
		e.raw(m.Digests[i][:])
	}
}

func (m *Digests) decode(d *decoder) {
	m.Volume, m.First = d.u32(), d.u64()
	m.Digests = make([][16]byte, d.count(int(d.u32()), MaxDigests, 16))
	for i := range m.Digests {
		d.into(m.Digests[i][:])
	}
}

func (m *Begin) encode(e *encoder) { e.u64(m.Epoch); e.flag(m.Restart) }
func (m *Begin) decode(d *decoder) { m.Epoch = d.u64(); m.Restart = d.flag() }

func (m *Data) encode(e *encoder) {
	if len(m.Extents) > MaxExtents || len(m.Payload) > MaxData {
		e.fail("data of %d extents and %d bytes", len(m.Extents), len(m.Payload))
	}
	m.encodeHead(e)
	e.raw(m.Payload)
}

// encodeHead is encode without the payload, which the writer sends from where it lies.
func (m *Data) encodeHead(e *encoder) {
	e.u32(m.Volume)
	e.u8(m.Codec)
	e.u8(uint8(len(m.Extents)))
	e.u32(m.RawLen)
	e.raw(m.Digest[:])
	for _, x := range m.Extents {
		e.u64(x.Block)
		e.u32(x.Count)
	}
}

func (m *Data) decode(d *decoder) {
	m.Volume, m.Codec = d.u32(), d.u8()
	n := int(d.u8())
	m.RawLen = d.u32()
	d.into(m.Digest[:])
	n = d.count(n, MaxExtents, 12)
	if cap(m.Extents) < n {
		m.Extents = make([]Extent, 0, MaxExtents)
	}
	m.Extents = m.Extents[:n]
	blocks := uint64(0)
	for i := range m.Extents {
		m.Extents[i] = Extent{Block: d.u64(), Count: d.u32()}
		blocks += uint64(m.Extents[i].Count)
	}
	m.Payload = d.b
	switch {
	case d.err != nil:
	case blocks == 0 || blocks > MaxExtents || uint64(m.RawLen) != blocks*4096:
		d.fail("%d raw bytes in %d blocks", m.RawLen, blocks)
	case len(m.Payload) == 0 || len(m.Payload) > MaxData:
		d.fail("data of %d bytes", len(m.Payload))
	case m.Codec > CodecS2:
		d.fail("unknown codec %d", m.Codec)
	}
	d.b = nil
}

func (m *Zero) encode(e *encoder) { e.u32(m.Volume); e.u64(m.Block); e.u32(m.Count) }
func (m *Zero) decode(d *decoder) { m.Volume, m.Block, m.Count = d.u32(), d.u64(), d.u32() }

func (m *Commit) encode(e *encoder) {
	e.u64(m.Epoch)
	e.flag(m.Point)
	e.u8(m.Consistency)
	e.u8(m.Method)
	e.u64(m.Request)
	e.moment(m.Expected)
	e.moment(m.Taken)
	if m.Freeze > 0 { // else as version 1 has it
		e.u64(uint64(m.Freeze))
	}
}

func (m *Commit) decode(d *decoder) {
	m.Epoch = d.u64()
	m.Point = d.flag()
	m.Consistency, m.Method = d.u8(), d.u8()
	m.Request = d.u64()
	m.Expected, m.Taken = d.moment(), d.moment()
	if len(d.b) > 0 {
		if m.Freeze = time.Duration(d.u64()); m.Freeze <= 0 || m.Freeze > MaxFreeze {
			d.fail("a freeze of %d ns", m.Freeze)
		}
	}
	if m.Point && (m.Consistency < ConsistencyFuzzy || m.Consistency > ConsistencyApplication || m.Taken.IsZero()) {
		d.fail("point of consistency %d taken at %v", m.Consistency, m.Taken)
	}
}

func (m *Ack) encode(e *encoder) {
	e.u64(m.Epoch)
	e.u64(m.HeadNumber)
	e.raw(m.HeadHash[:])
	e.text(m.Point)
}

func (m *Ack) decode(d *decoder) {
	m.Epoch, m.HeadNumber = d.u64(), d.u64()
	d.into(m.HeadHash[:])
	m.Point = d.text()
}

func (m *Refused) encode(e *encoder) {
	e.u64(m.Epoch)
	e.millis(m.RetryAfter)
	e.text(m.Text)
	e.text(m.NextStep)
}

func (m *Refused) decode(d *decoder) {
	m.Epoch, m.RetryAfter, m.Text, m.NextStep = d.u64(), d.millis(), d.text(), d.text()
}

func (m *CreditRequest) encode(*encoder) {}
func (m *CreditRequest) decode(*decoder) {}

func (m *Credit) encode(e *encoder)       { e.u32(m.Bytes) }
func (m *Credit) decode(d *decoder)       { m.Bytes = d.u32() }
func (m *PointRequest) encode(e *encoder) { e.u64(m.Request) }
func (m *PointRequest) decode(d *decoder) { m.Request = d.u64() }
func (m *Heartbeat) encode(e *encoder)    { e.moment(m.AsOf) }
func (m *Heartbeat) decode(d *decoder)    { m.AsOf = d.moment() }

func (m *Progress) encode(e *encoder) {
	e.u8(uint8(m.Phase))
	e.u16(uint16(len(m.Disks)))
	for _, disk := range m.Disks {
		e.u64(uint64(disk.Scanned))
		e.u64(uint64(disk.Backlog))
	}
	e.text(m.Text)
	e.text(m.NextStep)
}

func (m *Progress) decode(d *decoder) {
	m.Phase = Phase(d.u8())
	if m.Phase < PhaseScanning || m.Phase > PhaseStalled {
		d.fail("unknown phase %d", m.Phase)
	}
	m.Disks = make([]DiskProgress, d.count(int(d.u16()), MaxDisks, 16))
	for i := range m.Disks {
		m.Disks[i] = DiskProgress{Scanned: d.size(), Backlog: d.size()}
	}
	m.Text, m.NextStep = d.text(), d.text()
}

func (m *Inventory) encode(e *encoder) {
	if len(m.JSON) > MaxInventory {
		e.fail("inventory of %d bytes, at most %d", len(m.JSON), MaxInventory)
	}
	e.u32(uint32(len(m.JSON)))
	e.raw(m.JSON)
}

func (m *Inventory) decode(d *decoder) {
	n := d.count(int(d.u32()), MaxInventory, 1)
	m.JSON = append([]byte(nil), d.take(n)...)
}

func (e *Error) encode(enc *encoder) { enc.u16(uint16(e.Code)); enc.text(e.Text); enc.text(e.NextStep) }
func (e *Error) decode(d *decoder) {
	e.Code, e.Text, e.NextStep = Code(d.u16()), d.text(), d.text()
	d.b = nil // part of every version, which may say more
}

func (m *Bye) encode(e *encoder) { e.text(m.Reason) }
func (m *Bye) decode(d *decoder) { m.Reason = d.text() }

func (m *Renewal) encode(e *encoder) { e.str(m.CSR, MaxText) }
func (m *Renewal) decode(d *decoder) { m.CSR = d.text() }

func (m *Certificate) encode(e *encoder) { e.str(m.PEM, MaxText); e.text(m.Text) }
func (m *Certificate) decode(d *decoder) { m.PEM, m.Text = d.text(), d.text() }
