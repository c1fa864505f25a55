// Package cfn writes the network of protected machines as an AWS CloudFormation
// template: what stands here can be built there, with the same addresses.
//
// It knows addresses and nothing of what was before them: subnets are taken to be
// /24 networks, and machines of a subnet to reach each other freely.
package cfn

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lifeboat/internal/drs"
)

type (
	object map[string]any
	list   []any
)

// Template writes the network's template: a VPC, its subnets, and a network
// interface with its address for each one that a server has.
func Template(n drs.SourceNetwork) ([]byte, error) {
	subnets := subnetsOf(n.Configuration)
	if len(subnets) == 0 { // a VPC cannot be empty of addresses
		subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	}
	resources, outputs := object{}, object{"VpcId": object{"Value": ref("Vpc")}}
	ranges := rangesOf(subnets)
	resources["Vpc"] = resource("AWS::EC2::VPC", object{
		"CidrBlock": ranges[0].String(), "EnableDnsSupport": true, "EnableDnsHostnames": true, "Tags": tags(n, string(n.ID)),
	})
	after := list{}
	for i, r := range ranges[1:] {
		name := fmt.Sprintf("VpcRange%d", i+2)
		resources[name] = resource("AWS::EC2::VPCCidrBlock", object{"VpcId": ref("Vpc"), "CidrBlock": r.String()})
		after = append(after, name)
	}
	resources["SecurityGroup"] = resource("AWS::EC2::SecurityGroup", object{
		"GroupDescription": "Machines of source network " + string(n.ID) + " reach each other", "VpcId": ref("Vpc"),
		"SecurityGroupIngress": within(ranges), "Tags": tags(n, string(n.ID)),
	})
	resources["RouteTable"] = resource("AWS::EC2::RouteTable", object{"VpcId": ref("Vpc"), "Tags": tags(n, string(n.ID))})
	ids := list{}
	for i, s := range subnets {
		name := subnetName(i)
		subnet := resource("AWS::EC2::Subnet", object{"VpcId": ref("Vpc"), "CidrBlock": s.String(), "Tags": tags(n, s.String())})
		if len(after) > 0 {
			subnet["DependsOn"] = after
		}
		resources[name] = subnet
		resources[name+"Routes"] = resource("AWS::EC2::SubnetRouteTableAssociation", object{"SubnetId": ref(name), "RouteTableId": ref("RouteTable")})
		ids = append(ids, ref(name))
	}
	outputs["SubnetIds"] = object{"Value": object{"Fn::Join": list{",", ids}}}
	for i, card := range cardsOf(n.Configuration, subnets) {
		resources[fmt.Sprintf("Interface%d", i+1)] = resource("AWS::EC2::NetworkInterface", object{
			"Description": card.description, "SubnetId": ref(subnetName(card.subnet)), "PrivateIpAddress": card.address.String(),
			"GroupSet": list{object{"Fn::GetAtt": list{"SecurityGroup", "GroupId"}}}, "Tags": tags(n, card.description),
		})
	}
	text, err := json.MarshalIndent(object{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Description":              fmt.Sprintf("Source network %s (%s of account %s in %s), as Lifeboat knows it", n.ID, n.VPC, n.Origin.ID, n.Origin.Region),
		"Metadata":                 object{"Lifeboat": object{"SourceNetworkID": n.ID, "SourceVpc": n.VPC, "SourceServers": n.Configuration.Servers}},
		"Resources":                resources,
		"Outputs":                  outputs,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the template of %s: %w", n.ID, err)
	}
	return append(text, '\n'), nil
}

func resource(kind string, properties object) object {
	return object{"Type": kind, "Properties": properties}
}
func ref(name string) object  { return object{"Ref": name} }
func subnetName(i int) string { return fmt.Sprintf("Subnet%d", i+1) }

func tags(n drs.SourceNetwork, name string) list {
	return list{object{"Key": "Name", "Value": name}, object{"Key": "lifeboat:source-network", "Value": n.ID}}
}

func within(ranges []netip.Prefix) list {
	rules := list{}
	for _, r := range ranges {
		rules = append(rules, object{"IpProtocol": "-1", "CidrIp": r.String()})
	}
	return rules
}

// addresses are the IPv4 addresses of an interface that mean something elsewhere.
func addresses(nic drs.NetworkInterface) []netip.Addr {
	var out []netip.Addr
	for _, text := range nic.IPs {
		text, _, _ = strings.Cut(text, "/")
		ip, err := netip.ParseAddr(text)
		if err == nil && ip.Is4() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified() {
			out = append(out, ip)
		}
	}
	return out
}

func subnetsOf(c drs.NetworkConfiguration) []netip.Prefix {
	var out []netip.Prefix
	for _, server := range c.Servers {
		for _, nic := range server.Interfaces {
			for _, ip := range addresses(nic) {
				out = append(out, netip.PrefixFrom(ip, 24).Masked())
			}
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(out)
}

// rangesOf covers the subnets by the ranges of a VPC, which may be /16 at most:
// one for each /16 that subnets lie in, no larger than need be.
func rangesOf(subnets []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range subnets {
		last := len(out) - 1
		if last < 0 || netip.PrefixFrom(out[last].Addr(), 16).Masked() != netip.PrefixFrom(s.Addr(), 16).Masked() {
			out = append(out, s)
			continue
		}
		for !out[last].Contains(s.Addr()) {
			out[last] = netip.PrefixFrom(out[last].Addr(), out[last].Bits()-1).Masked()
		}
	}
	return out
}

type card struct {
	description string
	subnet      int
	address     netip.Addr
}

// cardsOf lists the addresses to keep, each once. The first four and the last of
// a subnet are AWS's own.
func cardsOf(c drs.NetworkConfiguration, subnets []netip.Prefix) []card {
	var out []card
	seen := map[netip.Addr]bool{}
	for _, server := range c.Servers {
		for _, nic := range server.Interfaces {
			for _, ip := range addresses(nic) {
				host := ip.As4()[3]
				at := slices.IndexFunc(subnets, func(s netip.Prefix) bool { return s.Contains(ip) })
				if at < 0 || seen[ip] || host < 4 || host == 255 {
					continue
				}
				seen[ip] = true
				out = append(out, card{fmt.Sprintf("%s %s", server.SourceServer, nic.MAC), at, ip})
			}
		}
	}
	return out
}
