// SPDX-License-Identifier: Apache-2.0

package sfu

import (
	"fmt"
	"testing"

	"github.com/trunkboard/trunkboard/signalling/attacktest"
)

// attackRows says for each row of the catalogue of attacks on the SFU which tests hold it: "folder: what stands in one of its test files", a
// function or the name of a case.
var attackRows = map[string][]string{
	"S01 tokens: no algorithm":                            {"sfu/livekit: TestBadTokensAreRefused", "sfu/livekit: TestHostileTokensOpenNothing"},
	"S02 tokens: another algorithm":                       {"sfu/livekit: \"RS256\"", "sfu/livekit: \"HS512\""},
	"S03 tokens: the key's name as a path":                {"sfu/livekit: \"kid path\""},
	"S04 tokens: expired, from the future":                {"sfu/livekit: \"not yet\"", "sfu/livekit: \"expired\""},
	"S05 tokens: without a grant, or a grant of no use":   {"sfu/livekit: \"no grant\"", "sfu/livekit: \"grant of no room\"", "sfu/livekit: \"grant as a string\""},
	"S06 tokens: a megabyte, damaged":                     {"sfu/livekit: \"a megabyte\"", "sfu/livekit: FuzzVerify"},
	"S07 a token for other rooms, names and purposes":     {"sfu/livekit: TestTheServiceRefusesWhoMayNot", "signalling/focus: TestATokenIsGoodForTheNamesOfItsHolderOnly"},
	"S08 a token after leaving, kick, ban and log-out":    {"cmd/trunkboard: TestWhoeverLeavesTheRoomOrLogsOutIsOutOfTheCallAtOnceAndStaysOut"},
	"S09 OpenID tokens of others and of lying servers":    {"cmd/trunkboard: TestTokensAreForMembersWhoProveWhoTheyAre", "signalling/focus: TestAnotherServerAsksForItsOwnUsersAndOurSFUOnly"},
	"S10 joining closed rooms, changing others":           {"sfu/livekit: TestRefusalsBeforeTheUpgrade", "sfu/livekit: TestHostileRequestsInACallAreRefused"},
	"S11 listening without permission; hidden ones":       {"sfu/livekit: TestHostileRequestsInACallAreRefused", "sfu/livekit: TestAPublisherChoosesItsAudience", "sfu/livekit: TestAHiddenParticipantIsToldToNobody"},
	"S12 sending without permission; taken away later":    {"sfu/livekit: TestPermissionsAreKept", "sfu/livekit: TestRoomsAreRunThroughTheService"},
	"S13 another's SSRC":                                  {"sfu/livekit: TestAnothersSSRCBelongsToWhoeverSendsIt"},
	"S14 broken RTP headers":                              {"sfu/packets: TestBrokenHeadersAreRefused", "sfu/packets: FuzzParse"},
	"S15 replayed, damaged, unsealed packets":             {"sfu/transport: TestReplayedDamagedAndUnsealedPacketsAreDropped"},
	"S16 junk and floods of RTCP":                         {"sfu/livekit: TestAStormOfRTCPCostsThePublisherLittle", "sfu/packets: FuzzParse", "sfu/congest: FuzzReadFeedback"},
	"S17 asking for the same packet over and over":        {"sfu/livekit: TestAStormOfRTCPCostsThePublisherLittle"},
	"S18 asking for key frames over and over":             {"sfu/forward: TestKeyFramesAreAskedForTwiceASecondAtMost"},
	"S19 descriptions without end":                        {"sfu/transport/sdp: TestBrokenDescriptionsAreRefused", "sfu/transport/sdp: FuzzParse", "sfu/livekit: \"endless sections\""},
	"S20 forged checks, many":                             {"sfu/transport: TestAFloodOfForgedChecksAndHellosChangesNothing", "sfu/transport: TestStrangersGetNoAnswer", "sfu/transport: FuzzCheck"},
	"S21 consent that runs out; taking over an address":   {"sfu/livekit: TestAClientThatFallsSilentIsRemoved", "sfu/transport: TestAFloodOfForgedChecksAndHellosChangesNothing"},
	"S22 hellos from addresses that passed no check":      {"sfu/transport: TestAFloodOfForgedChecksAndHellosChangesNothing"},
	"S23 handshakes with another certificate, damaged":    {"sfu/transport: TestAClientWithAnotherCertificateIsRefused", "sfu/transport: TestAFloodOfForgedChecksAndHellosChangesNothing"},
	"S24 data channels without end, long messages":        {"sfu/transport: TestDataChannelsAreBounded"},
	"S25 floods of data, slow readers":                    {"sfu/transport: TestDataChannelsAreBounded"},
	"S26 tracks without end, layers that flap":            {"sfu/livekit: TestEndlessTracksAreLimited", "sfu: TestATrackThatIsAnnouncedAndNotOfferedIsForgotten", "sfu/forward: TestKeyFramesAreAskedForTwiceASecondAtMost", "sfu/forward: TestALayerThatFallsSilentIsReplaced"},
	"S27 slow subscribers":                                {"sfu/transport: TestASlowTCPClientLosesPacketsAndHoldsNoMemory", "sfu/livekit: TestAClientThatDoesNotReadIsCutOff", "sfu/transport: TestDataChannelsAreBounded"},
	"S28 WebSocket frames against the rules, gzip bombs":  {"sfu/livekit: TestWebSocketsThatBreakTheirRulesAreClosed", "sfu/livekit: \"a huge frame\"", "sfu/livekit: TestRefusalsBeforeTheUpgrade"},
	"S29 floods of signals, answers that nobody asked":    {"sfu/livekit: \"a flood\"", "sfu/livekit: \"an unasked answer\""},
	"S30 messages with parts missing":                     {"sfu/livekit: TestEveryMessageWithEveryFieldMissingIsSurvived", "sfu/livekit: FuzzSignal", "sfu/livekit: FuzzReadJoinRequest"},
	"S31 resuming as somebody else":                       {"sfu/livekit: TestHostileResumesTakeOverNobody"},
	"S32 a war of joins":                                  {"sfu/livekit: TestAJoinWarHasOneWinner", "sfu/livekit: TestTheOlderOfTwoEqualIdentitiesIsRemoved"},
	"S35 end-to-end encrypted frames are not touched":     {"sfu/forward: TestEverySubscriberGetsItsOwnNumbersAndTheSamePayload"},
	"S36 payload descriptors cut short: VP8, H264":        {"sfu/packets: FuzzParse", "sfu/packets: TestVP8DescriptorIsReadAndRewrittenInPlace"},
	"S37 dependency descriptors that lie":                 {"sfu/packets: TestBrokenDependencyDescriptorsAreRefused", "sfu/packets: FuzzDependency"},
	"S38 redundant sound within redundant sound":          {"sfu/forward: TestRedundantSoundIsNotLookedInto"},
	"S39 error correction in loops":                       {"sfu/forward: TestRedundantSoundIsNotLookedInto"},
	"S40 repairs of unknown streams":                      {"sfu: TestRepairsOfUnknownStreamsAreDropped"},
	"S41 webhooks sent elsewhere; receivers that hang":    {"sfu/livekit: TestAWebhookFollowsNoRedirect", "sfu/livekit: TestAWebhookThatDoesNotAnswerHoldsFewEvents"},
	"S42 metrics and profiles for strangers":              {"cmd/trunkboard: TestTwoAppsRunInOneProcessAndLeaveNothingBehind"},
	"S43 the relay as a way to the SFU's host":            {"turn: TestOwnRelayAddressIsReachedOnlyAtLiveRelaysAndLocalPeers", "cmd/trunkboard: TestAClientWhoseNetworkAllowsOnlyTheRelayMeetsTheSFU"},
	"S44 running rooms without the key":                   {"sfu/livekit: TestTheServiceRefusesWhoMayNot"},
	"S45 names of 10 kB":                                  {"sfu/livekit: TestHostileNamesAreRefused", "sfu/livekit: \"a long name\""},
	"S46 names that look like others, with zeros, paths":  {"sfu/livekit: TestOddNamesAreOnlyNamesAndEmptyRoomsAreForgotten"},
	"S47 attributes and metadata of a megabyte":           {"sfu/livekit: \"endless attributes\"", "sfu/livekit: \"a megabyte of metadata\""},
	"S48 rooms without end, empty rooms that stay behind": {"sfu/livekit: TestOddNamesAreOnlyNamesAndEmptyRoomsAreForgotten"},
}

// notHere are the rows about what there is not, and why.
var notHere = map[string]string{
	"S33 a node of a cluster that lies": "rooms live on one node: SFUs do not talk to each other",
	"S34 one node ends another's room":  "rooms live on one node",
}

func TestEveryRowOfTheCatalogueOfAttacksHasItsTests(t *testing.T) {
	var rows []string
	for n := 1; n <= 48; n++ {
		rows = append(rows, fmt.Sprintf("S%02d ", n))
	}
	attacktest.Catalogue{Rows: attackRows, NotHere: notHere}.Check(t, rows...)
}
