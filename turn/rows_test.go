// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"testing"

	"github.com/trunkboard/trunkboard/signalling/attacktest"
)

// attackRows says for each row of the catalogue of attacks on STUN, TURN and calls which tests hold it: "folder: what stands in one of its
// test files", a function or the name of a case.
var attackRows = map[string][]string{
	// By number: what somebody may try.
	"T01 calls by those who are not in them":             {"homeserver/clientapi: T01 a call is rung, answered and ended by those who are in it"},
	"T02 ringing without end, or for weeks":              {"homeserver/clientapi: T02 a telephone cannot be made to ring without end", "homeserver/clientapi: T02 a ringing time of weeks"},
	"T03 credentials of others, expired or logged out":   {"turn: TestLogoutClosesTheDevicesAllocationsAndOnlyThose", "turn: TestBadCredentialsAreRefused", "turn: TestALongTermUserWhoIsRemovedLosesHisAllocations"},
	"T04 forged and overlong expiries, bad MACs":         {"turn: TestBadCredentialsAreRefused"},
	"T05-T18 closed ranges by every method":              {"turn: TestNinetySixChecksOfRangesAndMethods", "turn: TestDeniedPeersAreRefusedByEveryMethod", "turn: TestOnePermittedAddressAmongDeniedOnesIsNotPermitted"},
	"T19 the relay's own host as the peer":               {"turn: TestOwnRelayAddressIsReachedOnlyAtLiveRelaysAndLocalPeers", "turn: TestALANRangeDoesNotOpenOwnServices"},
	"T20 a loop through relays":                          {"turn: TestAPacketThroughOnesOwnRelayComesBackOnce"},
	"T21 sending clients to a private server":            {"turn: TestClientsAreSentToAnAlternateServerOfTheirFamily"},
	"T22 using up allocations":                           {"turn: TestQuotas", "turn: TestAnOriginLeadsToItsRealmWithItsOwnQuotas"},
	"T23 out of the quota by moving":                     {"turn: TestAClientThatMovesKeepsItsAllocation"},
	"T24 EVEN-PORT keeps the neighbour":                  {"turn: TestAllocatingAndFreeingLeaksNoPortAndNoDescriptor", "turn: TestLongAllocatingAndFreeingLeaksNothingInAHundredThousandCycles"},
	"T25 guessed and reused reservations":                {"turn: TestReservedPortsAreUsedOnceAndComeBack"},
	"T26 lifetimes of nothing and of for ever":           {"turn: TestARefreshLivesNoLongerThanTheLongestAndZeroEndsAtOnce"},
	"T27 another user's mobility ticket":                 {"turn: TestAClientThatMovesKeepsItsAllocation"},
	"T28 a 5-tuple that has an allocation":               {"turn: \"another Allocate\""},
	"T29 other credentials for an allocation":            {"turn: \"Refresh by another user\"", "turn: TestAPasswordsAllocationIsNotTakenOverWithAToken"},
	"T30 channels out of range, twice, to others":        {"turn: \"channel reserved\"", "turn: \"another channel to the peer\"", "turn: \"the channel to another peer\""},
	"T31 expired permissions and channels":               {"turn: the permission has expired and the channel still relays", "turn: the channel has expired and still relays"},
	"T32 a flood of permissions":                         {"turn: \"fourth permission\""},
	"T33 nonces of others, forged, old":                  {"turn: \"another client's nonce\"", "turn: \"forged nonce\"", "turn: \"old nonce\"", "turn: TestANonceOfAnotherServerOrOfBeforeARestartIsStale"},
	"T34 reflection of refusals":                         {"turn: TestNoAnswerToAStrangerIsMoreThanHalfAsLongAgain", "turn: TestAnswersToStrangersAreSmallAndFew"},
	"T35 a flood of Bindings":                            {"turn: TestAFloodOfStrangersLeavesNothingBehind", "turn: TestAFloodFromTenThousandPortsAddsAtMostFiveMegabytes"},
	"T36 a flood of sound requests":                      {"turn: TestAFloodFromTenThousandPortsAddsAtMostFiveMegabytes"},
	"T37 attributes that lie about their length":         {"turn/stunmsg: TestDamagedMessagesGetNoAnswer", "turn/stunmsg: FuzzPeek", "turn/stunmsg: FuzzXORAddress", "turn: FuzzHandler"},
	"T38 twice the same attribute, or behind the seal":   {"turn: TestTheFirstOfTwoPeersCountsAndNothingBehindTheIntegrity"},
	"T39 wrong fingerprint, no cookie":                   {"turn: TestDamagedFingerprintsAndCookiesGetNoAnswer"},
	"T40 bidding down to SHA-1":                          {"turn: TestTheStrongerIntegrityCannotBeLeftOutOfTheCheck"},
	"T41 unknown attributes":                             {"turn: \"unknown attribute\"", "turn/stunmsg: TestBindingRequestWithUnknownAttributeGets420"},
	"T42 tokens too long, damaged, where there are none": {"turn: TestTokensOfTheAuthorisationServerLetIn", "turn: FuzzToken"},
	"T43 framing of TCP":                                 {"turn/listen: TestFramesAreFoundHoweverTheBytesCome", "turn/listen: TestADripOfBytesDoesNotProlongAFrame", "turn/listen: TestWhatIsNotTURNIsCutOff", "turn/listen: FuzzStream"},
	"T44 half TLS handshakes":                            {"turn: TestHalfOpenConnectionsAreBounded"},
	"T45 a flood of DTLS hellos":                         {"turn/listen: TestAFloodOfHellosIsBoundedAndAClientStillConnects", "turn/listen: FuzzDTLS"},
	"T46 TCP relays: private peers, guesses, many":       {"turn: TestNinetySixChecksOfRangesAndMethods", "turn: TestConnectionsThatNobodyBindsAreClosed"},
	"T47 address families":                               {"turn: \"family junk\"", "turn: \"IPv6 on an IPv4 relay\"", "turn: \"IPv6 peer\"", "turn: TestADualAllocationWithoutIPv6SaysWhatIsMissing"},
	"T48 a storm of ICMP":                                {"turn: TestTheClientHearsOfICMPErrorsButNotOfAStorm"},
	"T49 names of 10 kB, with quotes and formats":        {"turn: \"long username\"", "turn: FuzzUsername", "turn: TestImpossibleLongTermUsersAreRefused", "turn: TestNamesThatArePiecesOfLanguagesAreOnlyNames"},
	"T50 the time that a comparison takes":               {"turn: TestSecretsAreComparedInConstantTime"},
	"T51 the vectors of RFC 5769":                        {"turn: TestRFC5769VectorsAreAuthenticAndNotWithOneBitFlipped"},
	"T52 secrets in logs and metrics":                    {"turn: TestNoSecretStandsInTheLogOrInTheMetrics"},
	// By class: what other relays have had to mend.
	"loopback by other names":            {"turn: TestNinetySixChecksOfRangesAndMethods"},
	"mapped addresses past the list":     {"turn: TestDeniedPeersAreRefusedByEveryMethod"},
	"ranges compared byte by byte":       {"cmd/trunkboard/coturn: FuzzRangesCoverWhatTheySay"},
	"the cloud's metadata, over TCP too": {"turn: TestNinetySixChecksOfRangesAndMethods"},
	"own ports, own loops":               {"turn: TestOwnRelayAddressIsReachedOnlyAtLiveRelaysAndLocalPeers", "turn: TestAPacketThroughOnesOwnRelayComesBackOnce"},
	"amplification":                      {"turn: TestNoAnswerToAStrangerIsMoreThanHalfAsLongAgain"},
	"state before authentication":        {"turn: TestAFloodFromTenThousandPortsAddsAtMostFiveMegabytes", "turn/listen: TestAFloodOfHellosIsBoundedAndAClientStillConnects"},
	"nonces":                             {"turn: TestANonceOfAnotherServerOrOfBeforeARestartIsStale", "turn: \"forged nonce\""},
	"ports and descriptors":              {"turn: TestLongAllocatingAndFreeingLeaksNothingInAHundredThousandCycles"},
	"taking over an allocation":          {"turn: \"Refresh by another user\""},
	"attributes behind the integrity":    {"turn: TestTheFirstOfTwoPeersCountsAndNothingBehindTheIntegrity"},
	"injection by names":                 {"turn: TestNamesThatArePiecesOfLanguagesAreOnlyNames"},
	"the way to the administrator":       {"turn: TestALANRangeDoesNotOpenOwnServices", "cmd/trunkboard: TestTheRelaysSessionsAreListedAndEndedOverTheMetricsListener"},
	"timing":                             {"turn: TestSecretsAreComparedInConstantTime"},
}

func TestEveryRowOfTheCatalogueOfAttacksHasItsTests(t *testing.T) {
	rows := []string{"T05-T18 "}
	for n := 1; n <= 52; n++ {
		if n < 5 || n > 18 {
			rows = append(rows, fmt.Sprintf("T%02d ", n))
		}
	}
	attacktest.Catalogue{Rows: attackRows}.Check(t, rows...)
}
