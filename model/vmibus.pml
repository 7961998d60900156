/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may write to a guest, and until when: leases, fences, epochs, two channels, disconnect, expiry,
 * preemption, an endpoint that goes and returns, and a restart.  Checked exhaustively for small sizes by
 * tests/model/test_model.py; HACKING.md says how to run it by hand.
 *
 * One class (MEMWRITE) on one endpoint is modelled, because leases of other classes and endpoints share
 * nothing with it but the counter of tokens.  What stands for what:
 *
 *     Control                     any client, honest or not: it uses tokens and epochs that it once saw
 *     Bus                         the loop's thread in src/bus: lease.c, control.c (control_deinit), endpoint.c (endpoint_free,
 *                                 tell_opened), bus.c (hear_fence_drained, bus_next_token)
 *       bus_grant()               lease_grant(), fence_issue(), answer_granted()
 *       bus_end()                 lease_end(), tell_last_holder()
 *       bus_try_free()            lease_try_free(), lease_is_drained(), lease_serve_waiters()
 *       bus_acquire()             lease_acquire(), lease_queue(), lease_preempt()
 *     Authority                   the loop's thread in src/memory
 *       authority_hear()          authority.c (authority_hear_link, hear_of_fence), fence.c, endpoint.c (memory_endpoint_open,
 *                                 memory_endpoint_close)
 *       authority_retire()        fence.c (retire, fence_leave)
 *       authority_write()         gate.c (gate_write), command_write.c (execute_there)
 *       authority_end_epoch()     endpoint.c (memory_endpoint_end_epoch, memory_endpoint_begin_epoch)
 *     Worker                      worker.c; write.c: check_word() is one step, what it then moves is another, and anything may
 *                                 happen between them.  A small write, done on the loop's thread, is a special case.
 *     Crash                       SIGKILL and a new start: daemon/incarnation.c
 *
 * Bus and authority speak in frames.  With APART they are two processes with a queue between them, and a
 * control's two connections have no common order; otherwise the authority hears in the call, as
 * core/core.c has it (bus_tells_memory).
 *
 * Ghosts are what nobody in the system knows, to state properties by: `grant` numbers what was ever
 * granted, and names a fence as a pointer does in the code; `era` does the same for memory contexts.
 *
 * Properties, by the number of the promise:
 *   p04  every gate is passed at commit: the fence holds, the epoch lasts, nothing has made the endpoint busy
 *   p05  a commit begins only under the very grant whose token it carries, never under one that was revoked, has expired, or whose
 *        loss was told (revoke first, notify second); and while octets move, no later token has been granted (next token only
 *        after drained)
 *   p06  a commit begins only in the epoch that the command named, and moves octets only into memory that was not given back
 *   p08  what is charged is released exactly once, and at the end nothing is
 *   and  nobody waits for ever: every run is finite, and none ends while a control waits for an answer
 *
 * Each BUG_ macro breaks one rule that the code keeps; the test demands that each is found.
 */

#ifndef CONTROLS
#define CONTROLS 2
#endif
#ifndef OPS0
#define OPS0 2          /* what the first control does, besides hanging up at the end */
#endif
#ifndef OPS1
#define OPS1 2          /* what the second does, which has the higher rank */
#endif
#ifndef EPOCHS
#define EPOCHS 2        /* per life and occupant, the first one counted */
#endif
#ifndef RESTARTS
#define RESTARTS 1
#endif
#ifndef RETURNS
#define RETURNS 0       /* how often the endpoint goes and another occupant comes */
#endif
#ifndef EXPIRIES
#define EXPIRIES 1
#endif
#ifndef PATIENCE
#define PATIENCE 1      /* how often the deadline of a revocation passes */
#endif
#ifndef BUSY
#define BUSY 1          /* how often a migration begins */
#endif

#define JOBS 2
#define GRANTS 8        /* ghost numbers, from 1 */
#define ERAS 8
#define LIVES 8
#define NOBODY 255

mtype = { ACQUIRE, PREEMPT, RELEASE, HANGUP };          /* control to bus */
mtype = { GRANTED, REFUSED };                           /* bus to control */
mtype = { ISSUE, REVOKE, OPENED, CLOSED };              /* bus to authority */
mtype = { FREE, HELD, REVOKING, OUT_OF_SERVICE };       /* a lease */
mtype = { NONE, QUEUED, CHECKED, DONE };                /* a job */

chan to_bus[CONTROLS] = [2] of { mtype, byte };         /* token */
chan from_bus[CONTROLS] = [2] of { mtype, byte, byte }; /* token, grant */
chan to_memory[CONTROLS] = [1] of { byte, byte, byte, byte, byte }; /* token, grant, epoch, era, session */
chan down = [6] of { mtype, byte, byte, byte, byte };   /* token, grant, session, generation */
chan up = [4] of { byte, byte };                        /* token, generation: FENCE_DRAINED */

/* What outlives a process. */
byte incarnation = 1;

/* The bus. */
mtype lease = FREE;
byte holder = NOBODY;
byte token;
byte grant;
byte tokens;                    /* given in this life */
bool fence_drains;
chan line = [CONTROLS] of { byte };
bool in_line[CONTROLS];         /* the charge of a place in line */
byte charged[CONTROLS];         /* the charge of a lease */
bool present = true;
byte generation = 1;
byte session[CONTROLS];
bool hung_up[CONTROLS];         /* the bus has noticed */
byte to_revoke;                 /* BUG_NOTIFY_FIRST: the token whose REVOKE is still to be sent */

/* The authority. */
bool open = true;
byte heard_generation = 1;
byte current;                   /* fence, by its grant */
byte highest;
byte fence_token[GRANTS];
byte fence_session[GRANTS];
byte fence_generation[GRANTS];
bool revoked[GRANTS];
byte in_flight[GRANTS];
byte epoch = 1;                 /* as told, of this life */
byte era = 1;                   /* 0: there is no memory context */
bool busy;

typedef job {
    mtype state;
    byte fence;
    byte era;
    byte cmd_grant;
    byte cmd_era;
}
job jobs[JOBS];

/* Ghosts. */
byte grants;
byte eras = 1;
byte latest[LIVES];             /* grant, by generation */
bool told[GRANTS];
bool expired[GRANTS];           /* the clock, which everybody reads */
bool given_back[ERAS];
bool waiting[CONTROLS];
byte finished;

/* Budgets. */
byte restarts = RESTARTS, returns = RETURNS, expiries = EXPIRIES, patience = PATIENCE, migrations = BUSY;
byte epochs = EPOCHS;

/* Numbers on the wire: an incarnation above a count. */
#ifdef BUG_TOKEN_RESET
#define WIRE_TOKEN tokens
#else
#define WIRE_TOKEN (incarnation * 16 + tokens)
#endif
#ifdef BUG_EPOCH_RESET
#define WIRE_EPOCH epoch
#else
#define WIRE_EPOCH (incarnation * 16 + epoch)
#endif

/* --- the authority ------------------------------------------------------------------------------ */

/* Nothing is in flight under a revoked fence: whoever waits for that is told, and the fence is freed. */
inline fence_drained(which) {
    f = which;
    up!fence_token[f], fence_generation[f];
    fence_token[f] = 0;
    fence_session[f] = 0;
    fence_generation[f] = 0;
    revoked[f] = false;
    f = 0
}

inline authority_retire() {
    if
    :: current ->
        revoked[current] = true;
        if
        :: in_flight[current] == 0 -> fence_drained(current)
        :: else
        fi;
        current = 0
    :: else
    fi
}

inline authority_give_back(e) {
    /* The last reference to an ended context is gone; jobs hold one. */
    if
#ifndef BUG_GIVE_BACK_EARLY
    :: e && e != era && !(jobs[0].state != NONE && jobs[0].era == e) && !(jobs[1].state != NONE && jobs[1].era == e) ->
#else
    :: e && e != era ->
#endif
        given_back[e] = true
    :: else
    fi
}

inline authority_hear(kind, t, g, s, occupant) {
    if
    :: kind == ISSUE ->
        if
        :: open && heard_generation == occupant && t > highest ->
            highest = t;
            authority_retire();
            fence_token[g] = t;
            fence_session[g] = s;
            fence_generation[g] = occupant;
            current = g
        :: else
        fi
    :: kind == REVOKE ->
        if
        :: t > highest -> highest = t
        :: else
        fi;
        if
        :: current && fence_token[current] == t -> authority_retire()
        :: else ->
            if
            :: g && fence_token[g] == t && in_flight[g] > 0 -> skip /* its last write will tell */
            :: else -> up!t, occupant
            fi
        fi
    :: kind == OPENED ->
        open = true;
        heard_generation = occupant;
        epoch++;
        eras++;
        era = eras;
        busy = false
    :: kind == CLOSED ->
        open = false;
        ended = era;
        era = 0;
        authority_give_back(ended);
        authority_retire()
    fi;
    ended = 0
}

inline authority_write(t, g, e, ghost, s) {
    if
    :: open && current && fence_token[current] == t && fence_session[current] == s && !expired[current] && era && e == WIRE_EPOCH &&
       !busy && (jobs[0].state == NONE || jobs[1].state == NONE) ->
        j = (jobs[0].state == NONE -> 0 : 1);
        jobs[j].state = QUEUED;
        jobs[j].fence = current;
        jobs[j].era = era;
        jobs[j].cmd_grant = g;
        jobs[j].cmd_era = ghost;
        in_flight[current] = in_flight[current] + 1;
        j = 0
    :: else /* refused */
    fi
}

inline authority_end_epoch() {
    ended = era;
    epoch++;
    eras++;
    era = eras;
    authority_give_back(ended);
    ended = 0
}

inline authority_job_done(n) {
    assert(in_flight[jobs[n].fence] > 0);
    in_flight[jobs[n].fence] = in_flight[jobs[n].fence] - 1;
    if
    :: revoked[jobs[n].fence] && in_flight[jobs[n].fence] == 0 -> fence_drained(jobs[n].fence)
    :: else
    fi;
    ended = jobs[n].era;
    jobs[n].state = NONE;
    jobs[n].fence = 0;
    jobs[n].era = 0;
    jobs[n].cmd_grant = 0;
    jobs[n].cmd_era = 0;
    authority_give_back(ended);
    ended = 0
}

active proctype Authority() {
    mtype kind;
    byte t, g, s, e, ghost, occupant, ended, j, f;

end:
    do
#ifdef APART
    :: atomic { down?kind, t, g, s, occupant -> authority_hear(kind, t, g, s, occupant);
            t = 0; g = 0; s = 0; occupant = 0; kind = 0 }
#endif
    :: atomic { to_memory[0]?t, g, e, ghost, s -> authority_write(t, g, e, ghost, s); t = 0; g = 0; s = 0; e = 0; ghost = 0 }
#if CONTROLS > 1
    :: atomic { to_memory[1]?t, g, e, ghost, s -> authority_write(t, g, e, ghost, s); t = 0; g = 0; s = 0; e = 0; ghost = 0 }
#endif
    :: atomic { era && epochs > 1 -> epochs--; authority_end_epoch() }
    :: atomic { !busy && migrations -> migrations--; busy = true }
    :: atomic { busy -> busy = false }
    :: atomic { jobs[0].state == DONE -> authority_job_done(0) }
    :: atomic { jobs[1].state == DONE -> authority_job_done(1) }
    od
}

/* --- a worker ----------------------------------------------------------------------------------- */

inline worker_check(n) {
    if
#ifndef BUG_TOKEN_AT_RECEIPT
    :: revoked[jobs[n].fence] || expired[jobs[n].fence] -> jobs[n].state = DONE
#endif
#ifndef BUG_EPOCH_AT_RECEIPT
    :: jobs[n].era != era -> jobs[n].state = DONE
#endif
#ifndef BUG_BUSY_AT_RECEIPT
    :: busy -> jobs[n].state = DONE
#endif
    :: else ->
        assert(!revoked[jobs[n].fence]);                /* p04, p05 */
        assert(!expired[jobs[n].fence]);                /* p04, p05 */
        assert(jobs[n].cmd_grant == jobs[n].fence);     /* p05: also not after a restart */
#ifndef APART
        assert(!told[jobs[n].fence]);                   /* p05: revoke first, notify second */
#endif
        assert(jobs[n].era == era);                     /* p04, p06 */
        assert(jobs[n].cmd_era == era);                 /* p06: also not after a restart */
        assert(!busy);                                  /* p04 */
        jobs[n].state = CHECKED
    fi
}

inline worker_move(n) {
    assert(latest[fence_generation[jobs[n].fence]] == jobs[n].fence); /* p05: next token only after drained */
    assert(!given_back[jobs[n].era]);                   /* p06 */
    jobs[n].state = DONE
}

active proctype Worker() {
end:
    do
    :: atomic { jobs[0].state == QUEUED && jobs[1].state != CHECKED -> worker_check(0) }
    :: atomic { jobs[1].state == QUEUED && jobs[0].state != CHECKED -> worker_check(1) }
    :: atomic { jobs[0].state == CHECKED -> worker_move(0) }
    :: atomic { jobs[1].state == CHECKED -> worker_move(1) }
    od
}

/* --- the bus ------------------------------------------------------------------------------------ */

inline bus_tell(kind, t, g, s, occupant) {
#ifdef APART
    down!kind, t, g, s, occupant
#else
    authority_hear(kind, t, g, s, occupant)
#endif
}

inline bus_grant(c) {
    assert(lease == FREE && charged[c] == 0);
    charged[c] = charged[c] + 1;
    tokens++;
    grants++;
    lease = HELD;
    token = WIRE_TOKEN;
    grant = grants;
    holder = c;
    latest[generation] = grant;
    bus_tell(ISSUE, token, grant, session[c], generation);
    from_bus[c]!GRANTED, token, grant
}

inline bus_try_free() {
    if
    :: (lease == REVOKING || lease == OUT_OF_SERVICE) && !fence_drains ->
        lease = FREE;
        if
#ifndef BUG_WAITER_FORGOTTEN
        :: len(line) > 0 ->
#else
        :: len(line) > 0 && !expired[grant] -> /* only a release wakes */
#endif
            line?w;
            in_line[w] = false;
            bus_grant(w)
        :: else
        fi
    :: else
    fi;
    w = 0
}

inline bus_release_charge(c) {
    assert(charged[c] == 1);                            /* p08 */
    charged[c] = charged[c] - 1
}

/* HELD -> REVOKING. */
inline bus_end() {
    lease = REVOKING;
#ifdef BUG_CHARGE_KEPT
    if
    :: expired[grant] -> skip
    :: else -> bus_release_charge(holder)
    fi;
#else
    bus_release_charge(holder);
#endif
    holder = NOBODY;
    fence_drains = true;
#ifdef BUG_NOTIFY_FIRST
    told[grant] = true;
    to_revoke = token;
#else
    bus_tell(REVOKE, token, grant, 0, generation);
    told[grant] = true;
#endif
#ifdef BUG_GRANT_BEFORE_DRAINED
    fence_drains = false;
#endif
    bus_try_free()
}

inline bus_leave_line(c) {
    /* lease_drop_control(): whoever waits leaves the line, and what it paid for its place is released. */
    if
    :: in_line[c] ->
        line??eval(c);
        in_line[c] = false
    :: else
    fi
}

inline bus_acquire(c, kind) {
    if
    :: !present || lease == OUT_OF_SERVICE || (lease == HELD && holder == c) || in_line[c] -> from_bus[c]!REFUSED, 0, 0
    :: present && lease == FREE -> bus_grant(c)
    :: present && (lease == REVOKING || (lease == HELD && holder != c)) && !in_line[c] ->
        line!c;
        in_line[c] = true;
        if
        :: kind == PREEMPT && lease == HELD -> bus_end()
        :: else
        fi
    fi
}

inline bus_hang_up(c) {
    bus_leave_line(c);
    if
    :: lease == HELD && holder == c ->
#ifdef BUG_TWO_CHANNELS
        /* The memory channel is gone too, so nothing can come any more: no need to ask whether something is under way. */
        lease = FREE;
        bus_release_charge(c);
        holder = NOBODY;
        if
        :: len(line) > 0 ->
            line?w;
            in_line[w] = false;
            bus_grant(w)
        :: else
        fi;
        w = 0
#else
        bus_end()
#endif
    :: else
    fi;
    session[c] = session[c] + 1;
    hung_up[c] = true
}

inline bus_handle(c) {
    if
    :: kind == ACQUIRE || kind == PREEMPT -> bus_acquire(c, kind)
    :: kind == RELEASE ->
        if
        :: lease == HELD && holder == c && token == t && !expired[grant] -> bus_end()
        :: else
        fi
    :: kind == HANGUP -> bus_hang_up(c)
    fi;
    kind = 0;
    t = 0
}

inline bus_refuse_line() {
    do
    :: nempty(line) ->
        line?w;
        in_line[w] = false;
        from_bus[w]!REFUSED, 0, 0
    :: empty(line) -> break
    od;
    w = 0
}

/* endpoint_free(): the authority first, then lease_deinit(). */
inline bus_lose_endpoint() {
    bus_tell(CLOSED, 0, 0, 0, generation);
    present = false;
    bus_refuse_line();
    if
    :: lease == HELD ->
        bus_release_charge(holder);
        holder = NOBODY;
        told[grant] = true
    :: else
    fi;
    lease = FREE;
    fence_drains = false;
    token = 0
}

active proctype Bus() {
    mtype kind;
    byte t, w, occupant, ended, f;

end:
    do
    :: atomic { nempty(to_bus[0]) && !to_revoke -> to_bus[0]?kind, t; bus_handle(0) }
#if CONTROLS > 1
    :: atomic { nempty(to_bus[1]) && !to_revoke -> to_bus[1]?kind, t; bus_handle(1) }
#endif
    :: atomic { up?t, occupant ->
            if
            :: present && occupant == generation && t == token && fence_drains -> fence_drains = false; bus_try_free()
            :: else
            fi;
            t = 0; occupant = 0 }
    :: atomic { lease == HELD && expired[grant] -> bus_end() }                      /* lease_timer_fired() */
    :: atomic { lease == REVOKING && patience -> patience--; lease = OUT_OF_SERVICE; bus_refuse_line() } /* lease_close() */
    :: atomic { lease == HELD && expiries && !expired[grant] -> expiries--; expired[grant] = true }      /* time passes */
    :: atomic { present && returns && !to_revoke -> bus_lose_endpoint() }
    :: atomic { !present && returns -> returns--; present = true; generation++; bus_tell(OPENED, 0, 0, 0, generation) }
#ifdef BUG_NOTIFY_FIRST
    :: atomic { to_revoke -> t = to_revoke; to_revoke = 0; bus_tell(REVOKE, t, grant, 0, generation); t = 0 }
#endif
    od
}

/* --- controls ----------------------------------------------------------------------------------- */

inline control_hang_up() {
    /* Whatever is still in its memory channel stays there: the two have no common order. */
    to_bus[c]!HANGUP, 0;
    atomic { hung_up[c] ->
        hung_up[c] = false;
        waiting[c] = false;
        do
        :: nempty(from_bus[c]) -> from_bus[c]?_, _, _
        :: empty(from_bus[c]) -> break
        od }
}

proctype Control(byte c) {
    byte ops = (c == 0 -> OPS0 : OPS1);
    mtype answer;
    byte t, g, my_token, my_grant, my_epoch, my_era;

    do
    :: ops ->
        ops--;
        if
        :: atomic { to_bus[c]!ACQUIRE, 0; waiting[c] = true }
        :: atomic { c == 1 -> to_bus[c]!PREEMPT, 0; waiting[c] = true }
        :: atomic { my_token -> to_bus[c]!RELEASE, my_token }
        :: atomic { my_token && era -> my_epoch = WIRE_EPOCH; my_era = era;
                to_memory[c]!my_token, my_grant, my_epoch, my_era, session[c] }
        :: atomic { my_token && my_era && my_era != era -> to_memory[c]!my_token, my_grant, my_epoch, my_era, session[c] }
        :: control_hang_up()
        fi;
        if
        :: waiting[c] ->
            if
            :: atomic { from_bus[c]?answer, t, g ->
                    waiting[c] = false;
                    if
                    :: answer == GRANTED -> my_token = t; my_grant = g
                    :: else
                    fi;
                    t = 0; g = 0; answer = 0 }
            :: atomic { ops -> ops-- }; control_hang_up()
            fi
        :: else
        fi
    :: else -> break
    od;
    control_hang_up();
    my_token = 0; my_grant = 0; my_epoch = 0; my_era = 0;
    finished++
}

/* --- death and rebirth -------------------------------------------------------------------------- */

/* Connections break; whoever waits learns of it; nothing of the process is left but the incarnation. */
active proctype Crash() {
    byte c, n;

    do
    :: atomic { restarts && finished < CONTROLS ->
            restarts--;
            incarnation++;
            lease = FREE; holder = NOBODY; token = 0; grant = 0; tokens = 0; fence_drains = false; to_revoke = 0;
            do :: nempty(line) -> line?n :: empty(line) -> break od;
            do :: nempty(down) -> down?_, _, _, _, _ :: empty(down) -> break od;
            do :: nempty(up) -> up?_, _ :: empty(up) -> break od;
            c = 0;
            do
            :: c < CONTROLS ->
                in_line[c] = false; charged[c] = 0; session[c] = session[c] + 1;
                do :: nempty(from_bus[c]) -> from_bus[c]?_, _, _ :: empty(from_bus[c]) -> break od;
                do :: nempty(to_memory[c]) -> to_memory[c]?_, _, _, _, _ :: empty(to_memory[c]) -> break od;
                n = 0;
                do
                :: nempty(to_bus[c]) -> to_bus[c]?_, n; 
                :: empty(to_bus[c]) -> break
                od;
                /* One that was hanging up has, one that waited waits no longer. */
                hung_up[c] = true;
                if :: waiting[c] -> from_bus[c]!REFUSED, 0, 0 :: else fi;
                c++
            :: else -> break
            od;
            current = 0; highest = 0; busy = false; open = true; present = true;
            generation++; heard_generation = generation;
            n = 0;
            do
            :: n < GRANTS -> in_flight[n] = 0; revoked[n] = false; fence_token[n] = 0; fence_session[n] = 0; n++
            :: else -> break
            od;
            n = 0;
            do
            :: n < JOBS -> jobs[n].state = NONE; jobs[n].fence = 0; jobs[n].era = 0; jobs[n].cmd_grant = 0; jobs[n].cmd_era = 0; n++
            :: else -> break
            od;
            epoch = 1; epochs = EPOCHS; eras++; era = eras;
            c = 0; n = 0 }
    :: else -> break
    od
}

/* --- the end ------------------------------------------------------------------------------------ */

active proctype Teardown() {
    byte c;

    timeout;
    atomic {
        assert(finished == CONTROLS);                   /* nobody waits for ever */
        assert(lease == FREE && holder == NOBODY && empty(line) && !fence_drains);
        assert(jobs[0].state == NONE && jobs[1].state == NONE);
        do
        :: c < CONTROLS -> assert(charged[c] == 0 && !in_line[c]); c++ /* p08 */
        :: else -> break
        od;
        c = 1;
        do
        :: c < GRANTS -> assert(in_flight[c] == 0); c++
        :: else -> break
        od
    }
}

init {
    atomic {
        jobs[0].state = NONE;
        jobs[1].state = NONE;
        run Control(0);
#if CONTROLS > 1
        run Control(1)
#endif
    }
}
