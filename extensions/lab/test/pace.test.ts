/** The panel's pace, by the figures its texts promise. `node --test` runs it; tests/unit/test_lab_pace.py does so. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pause } from '../src/pace.ts';

const running = { hidden: false, busy: true, lately: true, hertz: 2, spent: 0 };

test('the setting alone decides while answers are quick', () => {
  assert.equal(pause({ ...running, spent: 7 }), 3_000);
  assert.equal(pause({ ...running, hertz: 10 }), 600);
  assert.equal(pause({ ...running, hertz: 1 }), 6_000);
});

test('it takes no more than 1 % of the time, at any setting', () => {
  for (const hertz of [1, 2, 5, 10]) {
    for (let spent = 0; spent <= 100; spent += 0.5) {
      assert.ok(spent <= 0.01 * pause({ ...running, hertz, spent }) + 1e-9, `${spent} ms at ${hertz} Hz`);
    }
  }
});

test('a slower answer never makes it ask sooner', () => {
  let before = 0;
  for (let spent = 0; spent < 500; spent += 1) {
    const now = pause({ ...running, spent });
    assert.ok(now >= before);
    before = now;
  }
});

test('values still move, however long the answer took', () => {
  assert.equal(pause({ ...running, spent: 52 }), 5_200);
  assert.equal(pause({ ...running, spent: 60_000 }), 10_000);
});

test('an idle kernel has no time to lose, and a hidden page no reader', () => {
  const idle = { ...running, busy: false, spent: 500 };
  assert.equal(pause(idle), 3_000);
  assert.equal(pause({ ...idle, lately: false }), 3_000);
  assert.equal(pause({ ...running, hidden: true }), 15_000);
});
