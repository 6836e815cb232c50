package cosco.client.write;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.client.format.NumberArrays;
import cosco.v1.CommitRequest;
import cosco.v1.RefusalCode;
import cosco.v1.RenewAssignmentsReply;
import cosco.v1.RenewAssignmentsRequest;
import java.util.Collections;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What a writer makes of what services say. */
@Timeout(30)
class ExchangeWriterTest {
  private static final int ROOM = BlockCodec.IDENTITY_BYTES;

  private FakeServices fake;
  private final Random random = new Random(3);

  @BeforeEach
  void start() throws Exception {
    fake = new FakeServices(4, 2);
  }

  @AfterEach
  void stop() {
    fake.close();
  }

  private byte[] run(int length) {
    byte[] room = new byte[ROOM + length];
    random.nextBytes(room);
    return room;
  }

  private void add(ExchangeWriter writer, int partition, int records, int length)
      throws CoscoException {
    writer.add(partition, records, run(length), 0, length);
  }

  private CoscoException fails(ExchangeWriter writer, String kind) {
    CoscoException error = assertThrows(CoscoException.class, writer::commit);
    assertEquals(kind, error.kind(), error.getMessage());
    return error;
  }

  private long[] epochs(CommitRequest commit) {
    long[] pairs = new long[commit.getAcknowledged().size() / 8];
    for (int i = 0; i < pairs.length; i++) {
      for (int k = 7; k >= 0; k--) {
        pairs[i] = pairs[i] << 8 | commit.getAcknowledged().byteAt(8 * i + k) & 0xff;
      }
    }
    return pairs;
  }

  private static long[] of(long... numbers) {
    return numbers;
  }

  @Test
  void aCommitSaysWhatCameByPartitionAndWhoHasIt() throws Exception {
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    assertEquals(8, writer.partitions());
    add(writer, 1, 10, 1000);
    add(writer, 7, 3, 500);
    add(writer, 1, 5, 70000);
    WriterSums sums = writer.commit();
    assertTrue(sums.won());
    assertArrayEquals(of(0, 15, 0, 0, 0, 0, 0, 3), sums.rows());
    assertArrayEquals(of(0, 71000, 0, 0, 0, 0, 0, 500), sums.rawBytes());
    CommitRequest commit = fake.commits.take();
    assertArrayEquals(of(1L, 3L << 32 | 1), epochs(commit));
    long[] digests = new long[8];
    long[] stored = new long[8];
    for (FakeServices.Came frame : fake.frames) {
      for (BlockHeader block : frame.blocks()) {
        assertEquals(frame.range, block.partition / 2);
        assertEquals(5, block.mapper);
        assertEquals(9, block.attempt);
        assertEquals(FakeServices.NUMBER, block.exchange);
        digests[block.partition] += block.digest;
        stored[block.partition] += block.blockBytes();
      }
    }
    assertArrayEquals(of(1, 7), NumberArrays.ascending(commit.getGaps(), 2, "gaps"));
    assertArrayEquals(of(15, 3), NumberArrays.wide(commit.getRows(), 2, "rows"));
    assertArrayEquals(of(71000, 500), NumberArrays.wide(commit.getRawBytes(), 2, "raw"));
    assertArrayEquals(
        of(stored[1], stored[7]), NumberArrays.wide(commit.getStoredBytes(), 2, "stored"));
    assertEquals(NumberArrays.bytes64(of(digests[1], digests[7])), commit.getDigests());
    assertEquals(stored[1] + stored[7], writer.storedBytes());
    assertArrayEquals(stored, sums.storedBytes());
    assertEquals("ended", fake.ends.take());
    assertSame(sums, writer.commit());
    assertEquals(0, fake.commits.size());
    assertThrows(CoscoException.class, () -> add(writer, 1, 1, 1));
  }

  @Test
  void anAttemptWithoutRunsCommitsNothingAndCallsNoDaemon() throws Exception {
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    writer.commit();
    CommitRequest commit = fake.commits.take();
    assertEquals(0, commit.getAcknowledged().size());
    assertEquals(0, commit.getDigests().size());
    assertTrue(fake.ends.isEmpty());
  }

  @Test
  void aPartialAttemptSendsTheRangesThatAreWantedAndSaysSo() throws Exception {
    fake.opened.setPartial(true).addRanges(2);
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    for (int partition = 0; partition < 8; partition++) {
      add(writer, partition, 2, 100);
    }
    WriterSums sums = writer.commit();
    assertArrayEquals(of(0, 0, 0, 0, 2, 2, 0, 0), sums.rows());
    CommitRequest commit = fake.commits.take();
    assertTrue(commit.getPartial());
    assertEquals(Collections.singletonList(2), commit.getRangesList());
    assertArrayEquals(of(4, 5), NumberArrays.ascending(commit.getGaps(), 2, "gaps"));
    assertEquals(1, fake.frames.size());
    assertEquals(2, fake.frames.get(0).range);
  }

  @ParameterizedTest
  @CsvSource({
    "EXCHANGE_CLOSED, ExchangeClosed",
    "ACCESS_DENIED, AccessDenied",
    "INCOMPATIBLE, IncompatibleVersion",
    "PROTOCOL, ServiceUnavailable",
  })
  void whatCannotGetBetterFailsAtOnce(String code, String kind) throws Exception {
    fake.refuse(RefusalCode.valueOf("REFUSAL_CODE_" + code));
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    CoscoException error = fails(writer, kind);
    assertTrue(error.getMessage().contains("orders"), error.getMessage());
    assertFalse(error.isRetriable());
    assertEquals("cancelled", fake.ends.take());
    assertEquals(0, fake.renewals.size());
    fails(writer, kind); // and again for the same reason
    assertEquals(0, fake.commits.size());
  }

  @ParameterizedTest
  @CsvSource({"3, true", "4, false"})
  void aBrokenFrameIsSentAgainAFewTimes(int times, boolean passes) throws Exception {
    for (int i = 0; i < times; i++) {
      fake.refuse(RefusalCode.REFUSAL_CODE_BAD_FRAME);
    }
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    if (passes) {
      assertTrue(writer.commit().won());
      assertEquals(3, writer.resentFrames());
    } else {
      fails(writer, "DataCorrupted");
    }
  }

  @Test
  void aSealedRangeMovesToItsNewEpochAndTheOthersStay() throws Exception {
    fake.refuse(RefusalCode.REFUSAL_CODE_NOT_ASSIGNED);
    fake.renew = request -> RenewAssignmentsReply.newBuilder()
        .addAssignments(fake.assigned(0, 2)).build();
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    add(writer, 3, 1, 100);
    writer.commit();
    assertArrayEquals(of(2, 1L << 32 | 1), epochs(fake.commits.take()));
    RenewAssignmentsRequest asked = fake.renewals.take();
    assertEquals(1, asked.getStaleCount());
    assertEquals(0, asked.getStale(0).getRangeIndex());
    assertEquals(1, asked.getStale(0).getEpoch());
    assertFalse(asked.hasSuspect());
    assertTrue(writer.resentFrames() > 0);
  }

  @Test
  void whatWasSentOnAStreamThatBrokeIsSentAgainOnTheNext() throws Exception {
    fake.breaks = 3;
    fake.renew = request -> RenewAssignmentsReply.newBuilder().setAlive(true).build();
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    writer.commit();
    assertEquals(FakeServices.INCARNATION, fake.renewals.take().getSuspect().getIncarnation());
    assertEquals(1, fake.frames.size());
    assertArrayEquals(of(1), epochs(fake.commits.take()));
  }

  @Test
  void aDaemonWithoutRoomIsTriedAgain() throws Exception {
    for (int i = 0; i < 4; i++) {
      fake.refuse(RefusalCode.REFUSAL_CODE_NO_CAPACITY);
    }
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    assertTrue(writer.commit().won());
    assertTrue(writer.waitedNs() > 50_000_000);
  }

  @Test
  void aDaemonThatNeverHasRoomIsGivenUpAfterSeconds() throws Exception {
    for (int i = 0; i < 100; i++) {
      fake.refuse(RefusalCode.REFUSAL_CODE_NO_CAPACITY);
    }
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    long begin = System.nanoTime();
    assertTrue(fails(writer, "CapacityExceeded").isRetriable());
    double tookS = (System.nanoTime() - begin) / 1e9;
    assertTrue(tookS > 4 && tookS < 9, "" + tookS);
  }

  @Test
  void aWriterThatSeesNothingMoveAsksWhetherItsExchangeIsThere() throws Exception {
    fake.silent = true;
    fake.renewErrors.add(FakeServices.error("ExchangeClosed"));
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    fails(writer, "ExchangeClosed");
    assertEquals(0, fake.renewals.take().getStaleCount());
  }

  @Test
  void nothingCountsAsAcknowledgedThatIsNot() throws Exception {
    fake.silent = true;
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    new Thread(() -> {
      while (fake.frames.isEmpty()) {
        Thread.yield();
      }
      writer.abort();
    }).start();
    fails(writer, "ClientClosed"); // by the abort of another thread, which ends the wait
    assertEquals(0, fake.commits.size());
    assertEquals("cancelled", fake.ends.take());
    writer.abort();
    assertThrows(CoscoException.class, () -> add(writer, 0, 1, 1));
  }

  @Test
  void theWindowBoundsWhatIsNotAcknowledged() throws Exception {
    fake.silent = true;
    ExchangeWriter writer =
        fake.writer(WriterOptions.DEFAULT.withWindow(3 << 20, 1024).withCodec("none"));
    Thread self = Thread.currentThread();
    long[] interruptedNs = new long[1];
    new Thread(() -> {
      while (fake.frames.size() < 2) {
        Thread.yield();
      }
      interruptedNs[0] = System.nanoTime();
      self.interrupt();
    }).start();
    int[] added = new int[1];
    CoscoException error = assertThrows(CoscoException.class, () -> {
      for (; added[0] < 100; added[0]++) {
        add(writer, 0, 1, 1 << 20);
      }
    });
    assertTrue(Thread.interrupted()); // it still says so
    assertTrue(System.nanoTime() - interruptedNs[0] < 2_000_000_000L);
    assertEquals("ClientClosed", error.kind());
    assertEquals(2, fake.frames.size()); // each is a little over 1 MiB
    assertTrue(added[0] <= 2, "" + added[0]);
    assertEquals("cancelled", fake.ends.take());
  }

  @Test
  void aCommitThatIsRefusedEndsTheWriter() throws Exception {
    fake.commitErrors.add(FakeServices.error("GenerationChanged"));
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    add(writer, 0, 1, 100);
    fails(writer, "GenerationChanged");
    assertThrows(CoscoException.class, writer::commit);
    assertEquals(1, fake.commits.size());
    assertTrue(fake.ends.poll(5, TimeUnit.SECONDS) != null);
  }

  @Test
  void argumentsAreCheckedAndTheWriterGoesOn() throws Exception {
    ExchangeWriter writer = fake.writer(WriterOptions.DEFAULT);
    int[][] wrong = {{-1, 1, 0, 10}, {8, 1, 0, 10}, {0, 0, 0, 10}, {0, 1, -1, 10}, {0, 1, 1, 10},
        {0, 1, 0, -1}};
    for (int[] one : wrong) {
      CoscoException error = assertThrows(
          CoscoException.class, () -> writer.add(one[0], one[1], run(10), one[2], one[3]));
      assertEquals("InvalidArgument", error.kind());
    }
    writer.add(0, 1, run(10), 0, 10);
    assertEquals(1, writer.commit().rows()[0]);
    assertThrows(CoscoException.class, () -> WriterOptions.DEFAULT.withCodec("zip"));
    assertThrows(CoscoException.class, () -> WriterOptions.DEFAULT.withWindow(0, 1));
  }
}
