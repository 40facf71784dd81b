//! The words of FelixConfiguration's fields. The first of each is Calico's default.

keywords! {
    /// Which kernel interface rules go to.
    IptablesBackend, anycase {
        /// Whichever the host's own rules use, nft if there are none.
        Auto = "Auto",
        /// iptables-legacy.
        Legacy = "Legacy",
        /// iptables-nft.
        Nft = "NFT",
    }
}

keywords! {
    /// What becomes of allowed packets.
    AcceptReturn, anycase {
        /// Accepted at once.
        Accept = "Accept",
        /// Handed back to the host's own rules.
        Return = "Return",
    }
}

keywords! {
    /// What becomes of denied packets.
    DropReject, anycase {
        /// Dropped without a word.
        Drop = "Drop",
        /// Answered with an error.
        Reject = "Reject",
    }
}

keywords! {
    /// Where hooks go in the host's chains.
    ChainInsertMode, anycase {
        /// To the head.
        Insert = "Insert",
        /// To the end.
        Append = "Append",
    }
}

keywords! {
    /// What becomes of packets from a pod to its own node that policy allows.
    EndpointToHostAction, anycase {
        /// Dropped.
        Drop = "Drop",
        /// Accepted.
        Accept = "Accept",
        /// Left to the host's own rules.
        Return = "Return",
    }
}

keywords! {
    /// Whether pods may ask for source addresses that are not theirs.
    WorkloadSourceSpoofing, anycase {
        /// No.
        Disabled = "Disabled",
        /// Any address.
        Any = "Any",
    }
}

keywords! {
    /// What becomes of packets to service addresses that nobody serves.
    ServiceLoopPrevention, anycase {
        /// Dropped.
        Drop = "Drop",
        /// Answered with an error.
        Reject = "Reject",
        /// Routed as ever.
        Disabled = "Disabled",
    }
}

keywords! {
    /// Where routes to other nodes' pods come from.
    RouteSource, anycase {
        /// From blocks.
        CalicoIpam = "CalicoIPAM",
        /// From pods' addresses.
        WorkloadIps = "WorkloadIPs",
    }
}

keywords! {
    /// Destinations that are not masqueraded.
    NatOutgoingExclusions, exact {
        /// Addresses in pools.
        IpPoolsOnly = "IPPoolsOnly",
        /// Those and the nodes' own.
        IpPoolsAndHostIps = "IPPoolsAndHostIPs",
    }
}

keywords! {
    /// Whether rules go to nftables itself.
    NftablesMode, exact {
        /// As the platform suggests.
        Auto = "Auto",
        /// No.
        Disabled = "Disabled",
        /// Yes.
        Enabled = "Enabled",
    }
}

keywords! {
    /// What is asked of clients of metrics.
    ClientAuth, exact {
        /// A certificate that verifies.
        RequireAndVerifyClientCert = "RequireAndVerifyClientCert",
        /// Any certificate.
        RequireAnyClientCert = "RequireAnyClientCert",
        /// A certificate that verifies, or none.
        VerifyClientCertIfGiven = "VerifyClientCertIfGiven",
        /// Nothing.
        NoClientCert = "NoClientCert",
    }
}

keywords! {
    /// How eBPF programs are attached.
    BpfAttachType, exact {
        /// By TCX.
        Tcx = "TCX",
        /// By traffic control.
        Tc = "TC",
    }
}

keywords! {
    /// Connect-time load balancing.
    BpfConnectTimeLoadBalancing, exact {
        /// TCP only.
        Tcp = "TCP",
        /// All protocols.
        Enabled = "Enabled",
        /// None.
        Disabled = "Disabled",
    }
}

keywords! {
    /// What the clean-up of connection tracking logs.
    BpfConntrackLogLevel, exact {
        /// Nothing.
        Off = "Off",
        /// Everything.
        Debug = "Debug",
    }
}

keywords! {
    /// Who cleans up connection tracking.
    BpfConntrackMode, exact {
        /// Whichever works.
        Auto = "Auto",
        /// A process.
        Userspace = "Userspace",
        /// A program in the kernel.
        BpfProgram = "BPFProgram",
    }
}

keywords! {
    /// Reverse path filtering.
    BpfEnforceRpf, anycase {
        /// Some route must lead back.
        Loose = "Loose",
        /// None.
        Disabled = "Disabled",
        /// The route back must use the same interface.
        Strict = "Strict",
    }
}

keywords! {
    /// How packets to services travel between nodes.
    BpfExternalServiceMode, anycase {
        /// Both ways in a tunnel.
        Tunnel = "Tunnel",
        /// The answer goes directly.
        Dsr = "DSR",
    }
}

keywords! {
    /// Hardening of compiled eBPF programs.
    BpfJitHardening, exact {
        /// As it is, but not where it costs too much.
        Auto = "Auto",
        /// As it is.
        Strict = "Strict",
    }
}

keywords! {
    /// What eBPF programs log.
    BpfLogLevel, anycase {
        /// Nothing.
        Off = "Off",
        /// Some.
        Info = "Info",
        /// Everything.
        Debug = "Debug",
    }
}

keywords! {
    /// Whether the map of connections grows.
    BpfMapScaling, anycase {
        /// To the double when it is full.
        DoubleIfFull = "DoubleIfFull",
        /// Never.
        Disabled = "Disabled",
    }
}

keywords! {
    /// Whether packets skip the host side of a veth.
    BpfRedirectToPeer, exact {
        /// Yes.
        Enabled = "Enabled",
        /// No.
        Disabled = "Disabled",
    }
}

keywords! {
    /// Whether open flows are evaluated again when policy changes.
    PolicyEvaluationMode, exact {
        /// Yes.
        Continuous = "Continuous",
        /// No.
        None = "None",
    }
}

keywords! {
    /// What is done to the source check of EC2.
    AwsSrcDstCheck, exact {
        /// Nothing.
        DoNothing = "DoNothing",
        /// It is switched on.
        Enable = "Enable",
        /// It is switched off.
        Disable = "Disable",
    }
}
