package cfn

import (
	"encoding/json"
	"net/netip"
	"testing"

	"lifeboat/internal/drs"
)

func network(ips ...string) drs.SourceNetwork {
	n := drs.SourceNetwork{ID: "sn-0123456789abcdef0", VPC: "vpc-0123456789abcdef0", Origin: drs.Account{ID: "111122223333", Region: "eu-west-1"}}
	for _, ip := range ips {
		n.Configuration.Servers = append(n.Configuration.Servers, drs.NetworkServer{
			SourceServer: "s-0123456789abcdef0", Interfaces: []drs.NetworkInterface{{MAC: "02:00:00:00:00:01", IPs: []string{ip}}},
		})
	}
	return n
}

// Every reference leads to a resource, every subnet lies in a range of the VPC,
// and every address in its subnet.
func TestTemplate(t *testing.T) {
	for _, c := range []struct {
		name                string
		ips                 []string
		vpc                 string
		subnets, interfaces int
	}{
		{"no addresses", nil, "10.0.0.0/24", 1, 0},
		{"one", []string{"192.168.7.20/24"}, "192.168.7.0/24", 1, 1},
		{"two subnets", []string{"10.1.0.9", "10.1.3.9"}, "10.1.0.0/22", 2, 2},
		{"far apart", []string{"10.1.0.9", "10.1.255.9", "172.16.4.4"}, "10.1.0.0/16", 3, 3},
		{"the same address twice", []string{"10.0.0.9", "10.0.0.9"}, "10.0.0.0/24", 1, 1},
		{"one that AWS keeps", []string{"10.0.0.1"}, "10.0.0.0/24", 1, 0},
		{"nothing of use", []string{"fe80::1", "169.254.1.1", "127.0.0.1", "x", ""}, "10.0.0.0/24", 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := Template(network(c.ips...))
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				AWSTemplateFormatVersion string
				Resources                map[string]struct {
					Type       string
					Properties map[string]any
				}
			}
			if err := json.Unmarshal(text, &doc); err != nil || doc.AWSTemplateFormatVersion != "2010-09-09" {
				t.Fatalf("%v %s", err, text)
			}
			var ranges []netip.Prefix
			count := map[string]int{}
			for _, r := range doc.Resources {
				count[r.Type]++
				if r.Type == "AWS::EC2::VPC" || r.Type == "AWS::EC2::VPCCidrBlock" {
					ranges = append(ranges, netip.MustParsePrefix(r.Properties["CidrBlock"].(string)))
				}
			}
			if doc.Resources["Vpc"].Properties["CidrBlock"] != c.vpc || count["AWS::EC2::Subnet"] != c.subnets || count["AWS::EC2::NetworkInterface"] != c.interfaces {
				t.Errorf("%v in %v: %s", count, ranges, text)
			}
			for name, r := range doc.Resources {
				for _, p := range r.Properties {
					if reference, ok := p.(map[string]any); ok && reference["Ref"] != nil {
						if _, ok := doc.Resources[reference["Ref"].(string)]; !ok {
							t.Errorf("%s refers to %v", name, reference["Ref"])
						}
					}
				}
				switch r.Type {
				case "AWS::EC2::Subnet":
					subnet, in := netip.MustParsePrefix(r.Properties["CidrBlock"].(string)), false
					for _, whole := range ranges {
						in = in || whole.Contains(subnet.Addr()) && whole.Bits() <= subnet.Bits()
						if whole.Bits() < 16 || whole.Bits() > 28 {
							t.Errorf("a VPC cannot have %s", whole)
						}
					}
					if !in {
						t.Errorf("%s is in none of %v", subnet, ranges)
					}
				case "AWS::EC2::NetworkInterface":
					subnet := doc.Resources[r.Properties["SubnetId"].(map[string]any)["Ref"].(string)]
					if !netip.MustParsePrefix(subnet.Properties["CidrBlock"].(string)).Contains(netip.MustParseAddr(r.Properties["PrivateIpAddress"].(string))) {
						t.Errorf("%s: %v", name, r.Properties)
					}
				}
			}
		})
	}
}
